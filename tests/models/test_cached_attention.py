import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.models.attention import attention
from immunax.models.cached_attention import cached_attention


@pytest.mark.parametrize(("scale", "cap"), [(None, None), (0.2, None), (None, 1.5)])
def test_one_query_over_a_cache_attends_as_it_would_among_whole_sequences(scale, cap):
    keys = jax.random.split(jax.random.key(0), 4)
    query = 3 * jax.random.normal(keys[0], (2, 1, 6, 8))
    key, value = (jax.random.normal(each, (2, 11, 2, 8)) for each in keys[1:3])
    mask = jax.random.bernoulli(keys[3], 0.5, (2, 1, 1, 11)).at[..., 4].set(True)
    found = cached_attention(query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask, scale, cap)
    np.testing.assert_allclose(found, attention(query, key, value, mask, scale, cap), atol=1e-6)
    hidden = jnp.where(mask[:, 0, 0, :, None, None], value, 1e6)
    again = cached_attention(query, key.swapaxes(1, 2), hidden.swapaxes(1, 2), mask, scale, cap)
    np.testing.assert_array_equal(again, found)

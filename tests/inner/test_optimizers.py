import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.inner.optimizers import AdamW
from immunax.runtime.errors import UserError


def test_rates_rise_over_the_warmup_and_fall_to_zero_after_the_last_step():
    rate = AdamW(1.0, schedule="linear", warmup=0.2).rate(10)
    np.testing.assert_allclose(
        [rate(t) for t in range(11)], [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )
    cosine = AdamW(2.0, schedule="cosine").rate(8)
    np.testing.assert_allclose([cosine(0), cosine(4), cosine(8)], [2.0, 1.0, 0.0], atol=1e-6)
    assert float(AdamW(3.0).rate(5)(100)) == 3.0
    assert float(AdamW(3.0, schedule="cosine", warmup=0.9).rate(2)(1)) == 3.0


def test_an_update_is_adamw_on_the_clipped_gradient():
    optimizer = AdamW(0.1, weight_decay=0.01, max_grad_norm=1.0).build(4)
    weights, gradient = jnp.array([3.0, -1.0]), jnp.array([30.0, 40.0])
    updates, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    clipped = gradient / 50.0
    np.testing.assert_allclose(updates, -0.1 * (clipped / (jnp.abs(clipped) + 1e-8) + 0.01 * weights), rtol=1e-5)


def test_the_learning_rate_may_be_mapped_over():
    def moved(rate):
        optimizer = AdamW(rate, schedule="cosine", warmup=0.5).build(4)
        updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
        return updates

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(moved)(rates), jnp.stack([moved(0.1), moved(0.2)]), rtol=1e-6)


def test_unknown_schedules_and_impossible_warmups_are_refused():
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        AdamW(schedule="cosin")
    with pytest.raises(UserError, match="warmup"):
        AdamW(warmup=1.0)

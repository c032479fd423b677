"""Blocked causal attention against the dense library call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.models.attention import causal_attention, causal_mask


@pytest.mark.parametrize(("length", "window"), [(1, None), (129, 50), (300, None), (1100, None)])
def test_values_and_gradients_equal_dense_attention(length, window):
    keys = jax.random.split(jax.random.key(length), 4)
    query = jax.random.normal(keys[0], (2, length, 4, 8))
    key, value = (jax.random.normal(each, (2, length, 2, 8)) for each in keys[1:3])
    # Three segments and some padding, so that blocks cut through segments.
    columns = jnp.arange(length)
    segment_ids = jnp.stack([1 + 3 * columns // length, jnp.where(columns < 0.8 * length, 1, 0)])
    mask = causal_mask(segment_ids)
    if window is not None:
        mask &= columns[:, None] - columns < window
    weight = jax.random.normal(keys[3], query.shape)

    def blocked(query, key, value):
        return jnp.vdot(weight, causal_attention(query, key, value, mask))

    def dense(query, key, value):
        return jnp.vdot(weight, jax.nn.dot_product_attention(query, key, value, mask=mask))

    found = jax.jit(jax.value_and_grad(blocked, (0, 1, 2)))(query, key, value)
    expected = jax.jit(jax.value_and_grad(dense, (0, 1, 2)))(query, key, value)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


def test_capped_scores_are_capped_before_the_mask_and_after_the_scale():
    keys = jax.random.split(jax.random.key(0), 3)
    query = 3 * jax.random.normal(keys[0], (2, 140, 4, 8))
    key, value = (jax.random.normal(each, (2, 140, 2, 8)) for each in keys[1:])
    mask = causal_mask(jnp.ones((2, 140), jnp.int32))

    def naive(query, key, value):
        key, value = (jnp.repeat(part, 2, axis=2) for part in (key, value))
        scores = 1.5 * jnp.tanh(0.2 * jnp.einsum("bthd,bshd->bhts", query, key) / 1.5)
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhts,bshd->bthd", weights, value)

    def slopes(attend):
        return jax.jit(jax.grad(lambda *parts: jnp.sin(attend(*parts)).sum(), (0, 1, 2)))(query, key, value)

    def capped(query, key, value):
        return causal_attention(query, key, value, mask, scale=0.2, cap=1.5)

    np.testing.assert_allclose(capped(query, key, value), naive(query, key, value), atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), slopes(capped), slopes(naive))


def test_a_long_sequence_makes_fewer_scores():
    def flops(attend, length):
        shapes = [jax.ShapeDtypeStruct((1, length, heads, 8), jnp.float32) for heads in (4, 2, 2)]
        mask = jax.ShapeDtypeStruct((1, 1, length, length), bool)
        return jax.jit(attend).lower(*shapes, mask).compile().cost_analysis()["flops"]

    def dense(query, key, value, mask):
        return jax.nn.dot_product_attention(query, key, value, mask=mask)

    assert flops(causal_attention, 2048) < 0.65 * flops(dense, 2048)

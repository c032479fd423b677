"""A step that is short against the spacing of bfloat16 numbers does to a loss there what it does in float32."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.inner.losses import answer_loss
from immunax.models.decoder import Linear, rms_normalise
from immunax.models.model import Model

BATCH = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[small.batch(seed, 4) for seed in range(8)])


@partial(jax.jit, static_argnums=0)
def _loss(model, weights):
    return answer_loss(model, weights, BATCH)


def test_of_weights_that_are_bfloat16_numbers(compile_fast):
    start = small.params()
    start["layers"] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), start["layers"])
    step = 1e-4
    kernels = [leaf for leaf in jax.tree.leaves(start["layers"]) if leaf.ndim == 3]
    assert step < 0.5 * 2.0**-8 * np.mean([np.abs(leaf).mean() for leaf in kernels])
    slope = jax.jit(jax.grad(lambda layers: answer_loss(small.MODEL, {**start, "layers": layers}, BATCH)))(
        start["layers"]
    )
    moved = {**start, "layers": jax.tree.map(lambda leaf, each: leaf - step * jnp.sign(each), start["layers"], slope)}
    single, half = (
        float(_loss(model, moved) - _loss(model, start))
        for model in (small.MODEL, Model(small.CONFIG, dtype="bfloat16"))
    )
    assert single < -0.01
    assert half == pytest.approx(single, rel=0.15)


def _felt(variables, change):
    """How much of what a change of a projection's weights adds to its results in float32 is there in bfloat16; 1: all."""
    x = jax.random.normal(jax.random.key(0), (4, 64, 128), jnp.bfloat16)

    def added(dtype):
        layer = Linear(256, use_bias=True, dtype=dtype)
        before, after = (layer.apply(each, x.astype(dtype)) for each in (variables, change(variables)))
        return jnp.asarray(after, jnp.float32) - jnp.asarray(before, jnp.float32)

    want, found = added(jnp.float32), added(jnp.bfloat16)
    assert float(jnp.abs(want).mean()) < 1e-3  # where half the spacing of most results is 2e-3 and more
    return float((want * found).sum() / jnp.square(want).sum())


def test_of_what_an_adapter_or_a_bias_adds_to_a_product_that_is_rounded():
    rng = np.random.default_rng(0)
    kernel, a, b, bias = (
        jnp.asarray(rng.normal(size=shape) * scale, jnp.bfloat16).astype(jnp.float32)
        for shape, scale in (((128, 256), 128**-0.5), ((128, 8), 128**-0.5), ((8, 256), 2e-4), ((256,), 4e-4))
    )
    params, fresh = {"kernel": kernel, "bias": jnp.zeros(256)}, {"a": a, "b": jnp.zeros_like(b)}
    start = {"params": params, "lora": fresh}
    assert _felt(start, lambda weights: {**weights, "lora": {"a": a, "b": b}}) == pytest.approx(1, abs=0.1)
    assert _felt(start, lambda weights: {**weights, "params": params | {"bias": bias}}) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("norm_offset", [0.0, 1.0])
def test_of_a_norm(norm_offset):
    config = replace(small.CONFIG, norm_offset=norm_offset)
    x = jax.random.normal(jax.random.key(0), (512, 64), jnp.bfloat16)
    start, moved = (rms_normalise(x, jnp.full(64, 1 - norm_offset + step), config) for step in (0.0, 1e-3))
    assert moved.dtype == jnp.bfloat16
    grown = jnp.abs(moved.astype(jnp.float32)).sum() / jnp.abs(start.astype(jnp.float32)).sum()
    assert float(grown) - 1 == pytest.approx(1e-3, rel=0.2)

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.models.compute_copy import compute_copy
from immunax.models.families import FAMILIES
from immunax.models.lora import LoraSpec, init
from immunax.models.model import Model
from immunax.models.steered import Steered

VARIANTS = {
    "plain": {},
    "untied": {"tie_embeddings": False, "qkv_bias": True, "qk_norm": True},
    "gemma2": FAMILIES["gemma2"].fixed,
}
TOKENS = small.tokens(2, 9)


def _logits(model, weights):
    hidden = model.apply(weights, TOKENS, jnp.ones_like(TOKENS), jnp.arange(9)[None].repeat(2, 0)).hidden
    return model.logits(weights, hidden)


def _steered(base):
    layers, width = small.CONFIG.n_layers, small.CONFIG.d_model
    offsets = 1e-3 * jax.random.normal(jax.random.key(1), (layers + 1, width))
    return Steered(base, jnp.zeros((1, 1, width)), offsets, jnp.array([7]), jnp.zeros(0, jnp.uint32))


def _adapted(base):
    adapted = init(jax.random.key(0), base, LoraSpec(2))
    return adapted._replace(lora=jax.tree.map(lambda leaf: leaf + 0.1, adapted.lora))


@pytest.mark.parametrize("wrap", [lambda base: base, _adapted, _steered], ids=["plain", "adapted", "steered"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_not_a_bit_of_what_is_computed_changes(variant, wrap):
    model = Model(replace(small.CONFIG, **variant), dtype="bfloat16")
    # Scales off the grid of bfloat16, as trained ones are.
    weights = jax.tree.map(lambda leaf: leaf * 1.0037 + 0.0123, small.params(model=replace(model, dtype="float32")))
    logits = jax.jit(lambda weights: _logits(model, wrap(weights)))
    copy = compute_copy(weights, "bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(copy)} == {"bfloat16", "float32"}
    np.testing.assert_array_equal(logits(copy), logits(weights))
    if wrap is _steered:  # scales multiply its float32 stream
        everything = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), weights)
        assert not np.array_equal(logits(everything), logits(weights))


def test_weights_that_have_the_dtype_are_not_copied():
    weights = small.params()
    leaves = zip(jax.tree.leaves(compute_copy(weights, "float32")), jax.tree.leaves(weights), strict=True)
    assert all(copy is leaf for copy, leaf in leaves)

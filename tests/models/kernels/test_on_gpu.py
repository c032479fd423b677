"""What only a GPU can show: run `uv run pytest tests/models/kernels/test_on_gpu.py` where there is one."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.kernels.attention_cases import (
    PATTERNS,
    SEGMENTS,
    alike,
    both,
    forward_over_reverse,
    inputs,
    reverse_over_reverse,
    slope,
)

from immunax.data.batches import Batch
from immunax.inner.losses import answer_loss
from immunax.models.config import DecoderConfig
from immunax.models.kernels import choice
from immunax.models.model import Model

pytestmark = pytest.mark.skipif(choice.platform() != "gpu", reason="no NVIDIA GPU here")


def _wide(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


@pytest.mark.parametrize("segments", [SEGMENTS, np.sort(np.random.default_rng(0).integers(1, 17, (3, 640)), axis=1)])
@pytest.mark.parametrize("name", ["plain", "window"])
def test_values_are_those_of_plain_attention(name, segments):
    *arrays, _ = inputs(jnp.bfloat16, 64, segments)
    fused, plain = both("cudnn", PATTERNS[name], segments)
    alike(_wide(jax.jit(fused)(*arrays)), plain(*_wide(arrays)), 2e-2)


@pytest.mark.parametrize("derivative", [slope, forward_over_reverse, reverse_over_reverse])
@pytest.mark.parametrize("name", ["plain", "window"])
def test_derivatives_of_first_and_second_order_are_those_of_plain_attention(name, derivative):
    *arrays, weight = inputs(jnp.bfloat16, 64)
    fused, plain = both("cudnn", PATTERNS[name])
    found = jax.jit(derivative(fused, weight))(*arrays)
    alike(_wide(found), derivative(plain, _wide(weight))(*_wide(arrays)), 5e-2)


def test_members_of_a_population_are_each_computed_as_alone():
    query, key, value, weight = inputs(jnp.bfloat16, 64)
    fused, _ = both("cudnn", PATTERNS["plain"])
    together = jax.jit(jax.vmap(slope(fused, weight), (0, None, None)))(jnp.stack([query, -query]), key, value)
    for number, each in enumerate((query, -query)):
        alone = jax.jit(slope(fused, weight))(each, key, value)
        alike(_wide([leaf[number] for leaf in together]), _wide(alone), 1e-2)


def test_a_model_has_the_loss_and_the_gradient_that_it_has_without_the_kernel():
    config = DecoderConfig(
        family="llama", vocab_size=256, d_model=256, d_ff=512, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=64
    )
    fused = Model(config, "dots", "bfloat16", "cudnn")
    params = fused.init(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), SEGMENTS.shape, 0, 256)
    ids, columns = jnp.asarray(SEGMENTS), jnp.broadcast_to(jnp.arange(SEGMENTS.shape[1]), SEGMENTS.shape)
    batch = Batch(tokens, ids, columns, columns[:, :-1], tokens[:, 1:], (ids[:, 1:] > 0).astype(jnp.float32))
    found, expected = (
        jax.jit(jax.value_and_grad(partial(answer_loss, replace(fused, attention=each))))(params, batch)
        for each in ("cudnn", "xla")
    )
    alike(found, expected, 2e-2)

"""Tensor names, orientation and stacking."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from small import CONFIG, MODEL

from immunax.models import families, hf, weights
from immunax.models.hf_config import parse_config
from immunax.models.model import Model
from immunax.runtime.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = {
    "tied": CONFIG,
    "untied": replace(CONFIG, tie_embeddings=False),
    "biased": replace(CONFIG, family="qwen2", qkv_bias=True),
    "normed": replace(CONFIG, family="qwen3", qk_norm=True, tie_embeddings=False),
    "olmo2": replace(CONFIG, family="olmo2", **families.FAMILIES["olmo2"].fixed),
    "gemma2": replace(CONFIG, family="gemma2", **families.FAMILIES["gemma2"].fixed),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_a_tree_split_into_tensors_is_assembled_again_bit_for_bit(config):
    params = jax.jit(Model(config).init)(jax.random.key(0))
    tensors = dict(hf.split(config, families.tensors(config), params))
    assert set(tensors) == hf.names(config, families.tensors(config))
    again = hf.assemble(config, families.tensors(config), lambda name, shape: np.asarray(tensors[name]).reshape(shape))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)


@pytest.mark.parametrize("family", ["llama2", "llama3", "mistral", "qwen2", "qwen3", "smollm2", "olmo2", "gemma2"])
def test_what_transformers_saved_is_read_and_written_again_bit_for_bit(tmp_path, family):
    config = parse_config(weights.read_json(GOLDEN / family / "config.json"), family)
    table = families.tensors(config)
    params = hf.assemble(config, table, weights.find(GOLDEN / family).read)
    weights.write_shards(tmp_path, hf.split(config, table, params), "float32", 10**9)
    theirs, ours = (load_file(folder / weights.SINGLE) for folder in (GOLDEN / family, tmp_path))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }
    again = hf.assemble(config, table, weights.find(tmp_path).read)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)


def test_a_linear_layer_is_stored_transposed():
    params = jax.jit(MODEL.init)(jax.random.key(0))
    tensors = dict(hf.split(CONFIG, families.tensors(CONFIG), params))
    kernel = params["layers"]["mlp"]["down_proj"]["kernel"][2]
    np.testing.assert_array_equal(tensors["model.layers.2.mlp.down_proj.weight"], np.asarray(kernel).T)


def test_a_tree_that_does_not_fit_the_configuration_is_refused():
    params = jax.jit(MODEL.init)(jax.random.key(0))
    with pytest.raises(UserError, match=r"layers\.input_layernorm\.scale: expected shape \[4, 24\], found \[3, 24\]"):
        dict(hf.split(replace(CONFIG, n_layers=4), families.tensors(CONFIG), params))
    with pytest.raises(UserError, match=r"lm_head\.kernel: .* found none"):
        dict(hf.split(CONFIG, families.tensors(replace(CONFIG, tie_embeddings=False)), params))

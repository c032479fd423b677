"""Adapters in PEFT's layout; what they compute is compared in ``test_parity.py``."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small import CONFIG, MODEL

from immunax.models import families, hf, hf_config, hub, lora, peft, weights
from immunax.runtime.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
LLAMA2 = hf_config.parse_config(weights.read_json(GOLDEN / "llama2" / "config.json"), "llama2")
SPEC = lora.LoraSpec(3, 6.0, ("q_proj", "down_proj"))


@pytest.fixture
def adapter(tmp_path) -> Path:
    """An adapter that PEFT itself saved."""
    shutil.copytree(GOLDEN / "adapter", tmp_path / "adapter")
    return tmp_path / "adapter"


def make() -> dict:
    fresh = lora.init(jax.random.key(0), jax.jit(MODEL.init)(jax.random.key(1)), SPEC).lora
    return jax.tree.map(lambda leaf: np.asarray(leaf + 0.1), fresh)


def says(pattern: str):
    return pytest.raises(UserError, match=pattern)


def test_what_peft_saved_is_read(adapter):
    spec, tree = peft.load(adapter, LLAMA2)
    assert spec == lora.LoraSpec(3, 5.0, ("q_proj", "v_proj", "down_proj"))
    stored = load_file(adapter / "adapter_model.safetensors")
    theirs = stored["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"]
    np.testing.assert_array_equal(tree["layers"]["mlp"]["down_proj"]["a"][1], theirs.T)


def test_an_export_has_the_names_and_settings_that_peft_saves(adapter, tmp_path):
    spec, tree = peft.load(adapter, LLAMA2)
    peft.export(tmp_path / "out", LLAMA2, spec, tree, "llama2")
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "out", adapter))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    written, saved = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path / "out", adapter)
    )
    written["target_modules"], saved["target_modules"] = (
        sorted(written["target_modules"]),
        sorted(saved["target_modules"]),
    )
    assert written.items() <= saved.items()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_was_written_is_read_back(tmp_path, dtype):
    tree = make()
    peft.export(tmp_path / "out", CONFIG, SPEC, tree, "base", dtype)
    spec, again = peft.load(tmp_path / "out", CONFIG)
    assert spec == SPEC
    rounded = jax.tree.map(lambda leaf: leaf.astype(weights.DTYPES[dtype]).astype(np.float32), tree)
    jax.tree.map(np.testing.assert_array_equal, again, rounded)


@pytest.mark.parametrize("family", ["olmo2", "gemma2"])
def test_an_adapter_of_every_projection_of_a_family_is_read_back(tmp_path, family):
    config = hf_config.parse_config(weights.read_json(GOLDEN / family / "config.json"), family)
    base = hf.assemble(config, families.tensors(config), weights.find(GOLDEN / family).read)
    spec = lora.LoraSpec(2, 4.0)
    tree = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1), lora.init(jax.random.key(0), base, spec).lora)
    peft.export(tmp_path / "out", config, spec, tree, "base")
    found, again = peft.load(tmp_path / "out", config)
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, tree)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported; only 'LORA'"),
        ({"use_dora": True}, "use_dora True"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"some_future_option": 3}, "some_future_option 3"),
        ({"r": "3"}, "r is '3'"),
        ({"r": 4}, r"has shape \[3, 32\], expected \[4, 32\]"),
    ],
)
def test_anything_but_plain_lora_is_refused_by_name(adapter, fields, named):
    raw = weights.read_json(adapter / "adapter_config.json")
    weights.write_json(adapter / "adapter_config.json", {**raw, **fields})
    with says(named) as caught:
        peft.load(adapter, LLAMA2)
    assert "\n" not in str(caught.value)


def test_an_adapter_with_a_missing_or_foreign_tensor_is_refused(adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    one = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    save_file({name: array for name, array in tensors.items() if name != one}, adapter / "adapter_model.safetensors")
    with says(f"{one}' is missing"):
        peft.load(adapter, LLAMA2)
    save_file({**tensors, one.replace("layers.1", "layers.2"): tensors[one]}, adapter / "adapter_model.safetensors")
    with says(r"layers\.2.*' has no place"):
        peft.load(adapter, LLAMA2)
    save_file({one.replace("q_proj", "qkv_proj"): tensors[one]}, adapter / "adapter_model.safetensors")
    with says("'qkv_proj' is no projection of this model; expected adapters of q_proj, k_proj"):
        peft.load(adapter, LLAMA2)


def test_an_adapter_without_safetensors_or_settings_is_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with says("no adapter_model.safetensors; only safetensors are read"):
        peft.load(adapter, LLAMA2)
    (adapter / "adapter_config.json").unlink()
    with says("no adapter_config.json"):
        peft.load(adapter, LLAMA2)


def test_an_adapter_that_does_not_fit_its_specification_is_not_written(tmp_path):
    with says(r"q_proj\.a: expected shape \[3, 24, 5\], found \[3, 24, 3\]"):
        peft.export(tmp_path / "out", CONFIG, lora.LoraSpec(5, 6.0, ("q_proj",)), make(), "base")
    with says(r"v_proj\.a: .* found none"):
        peft.export(tmp_path / "out", CONFIG, lora.LoraSpec(3, 6.0, ("v_proj",)), make(), "base")
    with says("'kproj': expected some of .*Did you mean 'k_proj'"):
        peft.export(tmp_path / "out", CONFIG, lora.LoraSpec(3, 6.0, ("kproj",)), make(), "base")
    assert not (tmp_path / "out").exists()


def test_a_rank_that_the_tensors_have_not_is_refused_before_anything_is_allocated(adapter):
    content = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**content, "r": 10**12}))
    with says("has shape"):
        peft.load(adapter, LLAMA2)


def test_a_linked_folder_of_templates_beside_an_adapter_is_refused(adapter):
    (adapter / "additional_chat_templates").symlink_to(adapter)
    with says("a link to a folder"):
        hub.ModelSource(str(adapter)).load()

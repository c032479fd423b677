"""A folder of PEFT adapters as a model: its base with the adapters merged into it."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file, save_file

from immunax.models import lora, peft, weights
from immunax.models.hub import ModelSource
from immunax.runtime.errors import UserError

SPEC = lora.LoraSpec(2, 6.0, ("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A base and an adapter of it, side by side."""
    home = tmp_path_factory.mktemp("home")
    params = load(tiny_model.write(home / "base")).params
    adapters = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1), lora.init(jax.random.key(0), params, SPEC).lora)
    peft.export(home / "adapter", tiny_model.CONFIG, SPEC, adapters, str(home / "base"))
    return home


@pytest.fixture
def adapter(home, tmp_path) -> Path:
    """A copy of the adapter to spoil."""
    return Path(shutil.copytree(home / "adapter", tmp_path / "adapter"))


def load(path: Path):
    return ModelSource(str(path)).load()


def says(pattern: str):
    return pytest.raises(UserError, match=pattern)


def edit(folder: Path, **fields) -> None:
    weights.write_json(folder / peft.CONFIG, weights.read_json(folder / peft.CONFIG) | fields)


def keep(folder: Path, wanted) -> None:
    tensors = load_file(folder / peft.WEIGHTS)
    save_file({name: array for name, array in tensors.items() if wanted(name)}, folder / peft.WEIGHTS)


def kernel(checkpoint, layer: int, block: str = "self_attn", name: str = "q_proj") -> np.ndarray:
    return np.asarray(checkpoint.params["layers"][block][name]["kernel"][layer])


def delta(adapter: Path, layer: int) -> np.ndarray:
    """What PEFT adds to a query projection: ``alpha / r · B A``, of ``[out, in]``."""
    stored, name = load_file(adapter / peft.WEIGHTS), f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
    return 3.0 * stored[f"{name}B.weight"] @ stored[f"{name}A.weight"]


def test_an_adapter_is_loaded_merged_into_its_base(home):
    base, merged = load(home / "base"), load(home / "adapter")
    for layer in range(2):
        np.testing.assert_allclose(
            kernel(merged, layer), kernel(base, layer) + delta(home / "adapter", layer).T, rtol=1e-6, atol=1e-6
        )
    np.testing.assert_array_equal(kernel(merged, 0, "mlp", "up_proj"), kernel(base, 0, "mlp", "up_proj"))
    assert merged.config == base.config
    assert merged.tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert merged.digests.keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
        *(f"base/{name}" for name in base.digests),
    }
    assert ModelSource(str(home / "adapter")).shape() == base.config


def test_adapters_of_some_layers_leave_the_others_as_they_are(home, adapter):
    keep(adapter, lambda name: "layers.1" in name)
    edit(adapter, layers_to_transform=[1])
    base, merged = load(home / "base"), load(adapter)
    np.testing.assert_array_equal(kernel(merged, 0), kernel(base, 0))
    np.testing.assert_allclose(kernel(merged, 1), kernel(base, 1) + delta(adapter, 1).T, rtol=1e-6, atol=1e-6)


def test_a_pattern_of_modules_leaves_it_to_the_tensors_which_layers_are_adapted(home, adapter):
    keep(adapter, lambda name: "layers.1" in name and "q_proj" in name)
    edit(adapter, target_modules=r".*\.1\.self_attn\.q_proj")
    np.testing.assert_array_equal(kernel(load(adapter), 0), kernel(load(home / "base"), 0))


def test_a_layer_that_was_lost_is_not_taken_for_one_without_an_adapter(adapter):
    keep(adapter, lambda name: "layers.1" not in name)
    with says(r"layers\.1\.self_attn\.q_proj\.lora_A\.weight' is missing"):
        load(adapter)


def test_a_layer_that_the_settings_do_not_name_is_refused(adapter):
    edit(adapter, layers_to_transform=[1])
    with says(r"layers\.0\..*' is of a layer that layers_to_transform does not name"):
        load(adapter)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; write the base's folder or Hub id"),
        (
            {"base_model_name_or_path": "evil/payload", "revision": "v1"},
            "its base 'evil/payload' is not here; .*hf download evil/payload --revision v1",
        ),
        ({"lora_alpha": 1e39}, "base and adapter together are not finite; check lora_alpha"),
        ({"base_model_name_or_path": "./gone"}, r"model '\./gone': no such file or folder"),
        ({"base_model_name_or_path": "."}, r"its base '\.' is an adapter itself"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"layers_to_transform": "all"}, "layers_to_transform 'all': expected"),
        ({"layers_to_transform": [7]}, r"layers_to_transform \[7\]: expected"),
    ],
)
def test_an_adapter_that_cannot_be_put_on_a_base_is_refused_in_one_line(adapter, fields, named):
    edit(adapter, **fields)
    with says(named) as caught:
        load(adapter)
    assert "\n" not in str(caught.value)


def test_a_base_may_be_named_from_the_adapters_folder(home, adapter):
    shutil.copytree(home / "base", adapter.parent / "base")
    edit(adapter, base_model_name_or_path="../base")
    np.testing.assert_array_equal(kernel(load(adapter), 1), kernel(load(home / "adapter"), 1))


def test_an_adapter_with_a_value_that_is_not_finite_is_refused(adapter):
    tensors = load_file(adapter / peft.WEIGHTS)
    next(iter(tensors.values()))[0, 0] = np.inf
    save_file(tensors, adapter / peft.WEIGHTS)
    with says(r"adapter_model\.safetensors: tensor .* NaN or infinite"):
        load(adapter)


def test_a_tokenizer_that_the_adapter_brings_is_the_models(home, adapter):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(home / "base" / name, adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    merged = load(adapter)
    assert merged.tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert {"tokenizer.json", "chat_template.jinja"} < merged.digests.keys()
    raw = json.loads((adapter / "tokenizer.json").read_text())
    raw["added_tokens"][-1]["id"] = raw["model"]["vocab"][raw["added_tokens"][-1]["content"]] = 900
    (adapter / "tokenizer.json").write_text(json.dumps(raw))
    with says("has id 900, but the embedding has 304 rows"):
        load(adapter)

"""What users of other projects ran into with models and adapters, tried here; ``README.md`` beside this file has the sources."""

import shutil
from pathlib import Path

import gguf as library
import jax
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file, save_file
from transformers import GenerationConfig

from immunax.models import gguf, lora, peft, tokenizer, weights
from immunax.models.hub import ModelSource, export
from immunax.runtime.errors import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A model, and an adapter of it."""
    home = tmp_path_factory.mktemp("home")
    params, spec = load(tiny_model.write(home / "model")).params, lora.LoraSpec(2, 4.0, ("q_proj",))
    adapters = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1), lora.init(jax.random.key(0), params, spec).lora)
    peft.export(home / "adapter", tiny_model.CONFIG, spec, adapters, str(home / "model"))
    return home


@pytest.fixture
def model(home, tmp_path) -> Path:
    return Path(shutil.copytree(home / "model", tmp_path / "model"))


@pytest.fixture
def adapter(home, tmp_path) -> Path:
    return Path(shutil.copytree(home / "adapter", tmp_path / "adapter"))


def load(path: Path):
    return ModelSource(str(path)).load()


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def edit(path: Path, **fields) -> None:
    weights.write_json(path, weights.read_json(path) | fields)


def rename(path: Path, change) -> None:
    save_file({change(name): array for name, array in load_file(path).items()}, path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_one(model, name):
    (model / name).write_text(POINTER)
    refused(model, rf"{name}: a Git LFS pointer in place of the file; run git lfs pull")


def test_a_pointer_of_git_lfs_in_place_of_a_gguf_file_is_called_one(tmp_path):
    (tmp_path / "model.gguf").write_text(POINTER)
    refused(tmp_path / "model.gguf", "a Git LFS pointer")


def test_the_weights_of_a_compiled_module_are_refused_by_the_name_that_they_have(model):
    rename(model / weights.SINGLE, lambda name: f"_orig_mod.{name}")
    refused(model, r"'model\.embed_tokens\.weight' is missing .* Did you mean '_orig_mod\.model\.embed_tokens\.weight'")


def test_weights_saved_with_their_adapters_around_them_are_not_taken_for_plain_ones(model):
    rename(model / weights.SINGLE, lambda name: name.replace("q_proj.weight", "q_proj.base_layer.weight"))
    refused(model, r"'model\.layers\.0\.self_attn\.q_proj\.weight' is missing .*q_proj\.base_layer\.weight")


def test_a_tied_model_whose_two_matrices_were_trained_apart_is_refused(model):
    tensors = load_file(model / weights.SINGLE)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] * 1.01}, model / weights.SINGLE)
    refused(
        model, r"lm_head\.weight differs from model\.embed_tokens\.weight, but config\.json says tie_word_embeddings"
    )


def test_a_generation_configuration_that_contradicts_itself_does_not_stop_the_export(model, tmp_path):
    greedy = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 4}
    weights.write_json(model / "generation_config.json", greedy)
    checkpoint = load(model)
    export(tmp_path / "out", checkpoint, checkpoint.params)
    assert weights.read_json(tmp_path / "out" / "generation_config.json") == greedy
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == 4


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_a_rotary_scaling_that_is_not_known_is_refused_under_both_of_its_names(model, key):
    edit(model / "config.json", rope_scaling={key: "yarn", "factor": 4.0, "original_max_position_embeddings": 128})
    refused(model, "rotary scaling 'yarn' is not supported")


def test_a_gguf_file_from_before_pre_tokenizers_were_named_is_refused(tmp_path):
    writer = library.GGUFWriter(tmp_path / "old.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.open_file(tmp_path / "old.gguf")
    with pytest.raises(UserError, match="pre-tokenizer None is not supported; supported are gpt-2"):
        tokenizer.from_gguf(file.metadata, file.path)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("base_model.model.model.", "base_model.model.base_model.model.model."),
        ("base_model.model.model.", "base_model.model.model.language_model."),
        ("base_model.model.", ""),
        ("lora_A.weight", "lora_A.default.weight"),
    ],
)
def test_an_adapter_that_would_land_nowhere_is_refused_and_not_a_silent_base(adapter, was, now):
    rename(adapter / peft.WEIGHTS, lambda name: name.replace(was, now))
    refused(adapter, r"tensor '.*lora_A.*' has no place in a LoRA adapter of this model")


def test_an_adapter_whose_tensors_were_saved_empty_is_refused(adapter):
    tensors = load_file(adapter / peft.WEIGHTS)
    save_file({name: np.zeros(0, np.float32) for name in tensors}, adapter / peft.WEIGHTS)
    refused(adapter, r"lora_A\.weight' has shape \[0\], expected \[2, 32\]")


def test_an_adapter_that_brings_an_embedding_is_refused_also_where_its_settings_do_not_say_so(adapter):
    tensors = load_file(adapter / peft.WEIGHTS)
    tensors["base_model.model.model.embed_tokens.weight"] = np.zeros((310, 32), np.float32)
    save_file(tensors, adapter / peft.WEIGHTS)
    refused(adapter, r"embed_tokens\.weight' has no place")
    edit(adapter / peft.CONFIG, modules_to_save=["embed_tokens", "lm_head"])
    refused(adapter, "modules_to_save")

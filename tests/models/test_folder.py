"""What a folder of a model is held against before it is loaded."""

import base64
import json
import os
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file, save_file

from immunax.models import finite, speech, weights
from immunax.models.hub import ModelSource, export
from immunax.runtime.digest import of_file
from immunax.runtime.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to spoil; its two matrices of the vocabulary are tied."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(path: Path):
    return ModelSource(str(path)).load()


def says(pattern: str):
    return pytest.raises(UserError, match=pattern)


def edit(folder: Path, name: str, **fields) -> None:
    weights.write_json(folder / name, weights.read_json(folder / name) | fields)


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / weights.SINGLE)
    change(tensors)
    save_file(tensors, folder / weights.SINGLE)


def test_an_old_index_beside_a_newer_single_file_is_refused_by_both_names(folder):
    checkpoint = load(folder)
    export(folder.parent / "shards", checkpoint, checkpoint.params, max_shard_bytes=20_000)
    for path in (folder.parent / "shards").glob("model*"):
        shutil.copy(path, folder)
    with says(r"two sets of weights, model\.safetensors and the \d+ shards of model\.safetensors\.index\.json"):
        load(folder)


def test_an_index_that_names_the_single_file_alone_is_one_set_of_weights(folder):
    names = load_file(folder / weights.SINGLE)
    weights.write_json(folder / weights.INDEX, {"weight_map": dict.fromkeys(names, weights.SINGLE)})
    assert load(folder).config == tiny_model.CONFIG


def test_an_adapter_beside_a_whole_model_is_refused(folder):
    weights.write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    with says(r"has both config\.json and adapter_config\.json"):
        load(folder)


def test_a_token_past_the_embedding_is_refused_though_the_tokens_are_few(folder):
    raw = weights.read_json(folder / "tokenizer.json")
    [last] = [each for each in raw["added_tokens"] if each["content"] == "<|im_end|>"]
    raw["model"]["vocab"]["<|im_end|>"] = last["id"] = 700
    weights.write_json(folder / "tokenizer.json", raw)
    with says(r"token '<\|im_end\|>' has id 700, but the embedding has 304 rows"):
        load(folder)


def test_a_token_past_the_embedding_that_only_the_post_processor_adds_is_refused(folder):
    raw = weights.read_json(folder / "tokenizer.json")
    special = {"<start>": {"id": "<start>", "ids": [9999], "tokens": ["<start>"]}}
    pieces = [{"SpecialToken": {"id": "<start>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    both = [*pieces, {"Sequence": {"id": "B", "type_id": 1}}]
    raw["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": both, "special_tokens": special}
    weights.write_json(folder / "tokenizer.json", raw)
    with says("the token put around every text has id 9999, but the embedding has 304 rows"):
        load(folder)
    special["<start>"]["ids"] = [1]
    weights.write_json(folder / "tokenizer.json", raw)
    assert load(folder).tokenizer("a")["input_ids"][0] == 1


def test_a_tokenizer_with_code_of_its_own_is_refused(folder):
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    with says(r"tokenizer_config\.json: auto_map names code .*tokenization_x\.X.* what tokenizer\.json does") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", list(weights.DTYPES))
def test_a_value_that_is_not_finite_is_refused_by_its_tensors_name(folder, value, dtype):
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(tensors):
        for each in tensors:
            tensors[each] = tensors[each].astype(weights.DTYPES[dtype])
        tensors[name][-1, -1] = value

    edit_tensors(folder, spoil)
    with says(rf"model\.safetensors: tensor '{name}' has values that are NaN or infinite"):
        load(folder)


def test_the_whole_of_a_large_tensor_is_looked_through():
    array = np.zeros(finite._AT_ONCE + 2, ml_dtypes.bfloat16)
    assert finite.finite(array, "x", "file") is array
    array[-1] = np.nan
    with says("file: tensor 'x' has values that are NaN"):
        finite.finite(array, "x", "file")


def test_a_tied_model_that_kept_its_head_alone_is_the_same_model(whole, folder):
    edit_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("model.embed_tokens.weight")}))
    jax.tree.map(np.testing.assert_array_equal, load(folder).params, load(whole).params)


@pytest.mark.parametrize(
    ("claim", "named"),
    [
        ({"num_hidden_layers": 10**9}, r"config\.json: num_hidden_layers is 1000000000: expected at most 1024"),
        ({"num_hidden_layers": 1000}, r"config\.json: says 1000 layers, but the weights have \d+ tensors"),
        ({"num_hidden_layers": 3}, r"tensor 'model\.layers\.2\.[\w.]+' is missing"),
        ({"num_hidden_layers": 1}, r"tensor 'model\.layers\.1\.[\w.]+' has no place"),
        ({"vocab_size": 10**12}, r"has shape \[304, 32\], expected \[1000000000000, 32\]"),
        ({"intermediate_size": 10**15}, r"expected \[1000000000000000, 32\]"),
        ({"num_attention_heads": 10**9, "num_key_value_heads": 10**9}, r"expected \[8000000000, 32\]"),
        ({"rms_norm_eps": float("inf")}, r"config\.json: .* has Infinity, which is no number of JSON"),
        ({"rms_norm_eps": 10**400}, "has a number of 401 digits"),
        ({"rope_theta": float("nan")}, "has NaN, which is no number of JSON"),
        (
            {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}},
            r"auto_map names code .*\(modeling_x\.X\).* plain llama",
        ),
        (
            {
                "rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
            "rope_parameters and rope_scaling differ",
        ),
    ],
)
def test_a_configuration_that_claims_what_the_files_are_not_is_refused(folder, claim, named):
    edit(folder, "config.json", **claim)
    with says(named) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_configuration_nested_without_end_is_refused(folder):
    (folder / "config.json").write_text("[" * 200_000)
    with says(r"config\.json: not readable as JSON"):
        load(folder)


def test_both_forms_of_the_same_rotary_parameters_are_read(folder):
    scaling = {"rope_type": "linear", "factor": 2.0}
    edit(folder, "config.json", rope_parameters={"rope_theta": 1e4, **scaling}, rope_theta=1e4, rope_scaling=scaling)
    assert load(folder).config.rope_scaling.factor == 2.0


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_to_nothing_is_named(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to("../../blobs/0123")
    with says(rf"{name}: a link to \.\./\.\./blobs/0123, which is not there"):
        load(folder)


def test_a_path_that_is_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "model").symlink_to("gone")
    with says("a link to gone, which is not there"):
        load(tmp_path / "model")


def test_a_folder_around_a_snapshot_names_the_snapshot(whole, tmp_path):
    root = tmp_path / "hub"
    snapshot = root / "models--owner--name" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(whole, snapshot)
    for outer in (root, root / "models--owner--name", snapshot.parent):
        with says(rf"no model but a folder of some; give one of them, such as {snapshot}"):
            load(outer)


def exported(folder: Path, dtype: str = "float32") -> Path:
    checkpoint = load(folder)
    export(folder.parent / "out", checkpoint, checkpoint.params, dtype)
    return folder.parent / "out"


def test_an_exported_tokenizer_has_its_special_tokens_where_both_versions_of_transformers_look(folder):
    settings = weights.read_json(exported(folder) / "tokenizer_config.json")
    # Version 4 calls keys() on extra_special_tokens, and knows no class of version 5.
    assert "extra_special_tokens" not in settings
    assert settings["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only"} & settings.keys()
    again = load(folder.parent / "out").tokenizer
    assert again.decode(again("<|im_start|>the cat").input_ids, skip_special_tokens=True) == "the cat"


@pytest.mark.parametrize(
    ("rope", "older"),
    [
        ({"rope_theta": 5e5, "rope_type": "default"}, {"rope_theta": 5e5, "rope_scaling": None}),
        (
            {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
    ],
)
def test_an_exported_configuration_has_its_rotary_parameters_in_both_forms(folder, rope, older):
    raw = weights.read_json(folder / "config.json")
    raw = {name: value for name, value in raw.items() if not name.startswith("rope_")} | {"rope_parameters": rope}
    weights.write_json(folder / "config.json", raw)
    written = weights.read_json(exported(folder) / "config.json")
    assert written == raw | older | {"dtype": "float32"}
    assert load(folder.parent / "out").config == load(folder).config


def test_an_export_keeps_the_generation_configuration(folder):
    generation = {"eos_token_id": [2, 4], "temperature": 0.6, "do_sample": True}
    weights.write_json(folder / "generation_config.json", generation)
    assert json.loads((exported(folder, "bfloat16") / "generation_config.json").read_text()) == generation


def test_further_chat_templates_of_a_folder_are_part_of_its_digests(folder):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    assert "additional_chat_templates/tools.jinja" in load(folder).digests


def test_a_linked_folder_of_chat_templates_is_refused_and_a_linked_template_is_digested_by_what_it_holds(folder):
    other = folder / "templates"
    other.mkdir()
    (other / "more.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").symlink_to(other)
    with says("additional_chat_templates: a link to a folder"):
        load(folder)
    (folder / "additional_chat_templates").unlink()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "more.jinja").symlink_to(other / "more.jinja")
    assert load(folder).digests["additional_chat_templates/more.jinja"] == of_file(other / "more.jinja")


@pytest.mark.parametrize("name", ["generation_config.json", "additional_chat_templates/tools.jinja"])
def test_a_link_out_of_the_folder_is_refused_where_an_export_would_carry_on_what_it_leads_to(folder, name):
    private = folder.parent / "private"
    private.write_text('{"key": "secret"}')
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(private)
    with says(rf"{Path(name).name}: a link to a file outside the folder, .*private; put a copy"):
        load(folder)


def test_a_snapshot_of_the_hub_is_links_to_its_blobs_and_weights_may_lie_anywhere(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "1", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        elsewhere = tmp_path if path.suffix == ".safetensors" else blobs
        path.rename(elsewhere / str(number))
        (snapshot / path.name).symlink_to(elsewhere / str(number))
    assert load(snapshot).digests


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "model-extra.safetensors", "x.py"])
def test_what_could_be_loaded_and_is_no_plain_file_is_refused(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with says(f"{name}: is a FIFO; expected a plain file"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "names other files"),
        ({"model_max_length": "x"}, "the tokenizer cannot be read"),
        ({"extra_special_tokens": {"template_args": "<x>"}}, "the name 'template_args' of a special token"),
        ({"model_specific_special_tokens": {"padding_side": "<x>"}}, "the name 'padding_side' of a special token"),
    ],
)
def test_settings_of_a_tokenizer_that_lead_elsewhere_or_break_it_are_one_line(folder, settings, reason):
    edit(folder, "tokenizer_config.json", **settings)
    with says(reason):
        load(folder)


def test_a_tokenizer_that_would_fill_the_memory_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    doubled = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"} for _ in range(40)]
    weights.write_json(
        folder / "tokenizer.json", {**content, "normalizer": {"type": "Sequence", "normalizers": doubled}}
    )
    with says(r"its normalizer makes texts 1\.1e\+12 times as long"):
        load(folder)


def test_a_table_of_characters_that_writes_one_as_many_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    trie = bytes(4096)
    table = base64.b64encode(len(trie).to_bytes(4, "little") + trie + b"a\0" + b"e" * 1000 + b"\0").decode()
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": table}
    weights.write_json(folder / "tokenizer.json", content)
    with says("its normalizer makes texts 1e.03 times as long"):
        load(folder)


def test_a_token_that_is_longer_than_any_word_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][-1], "id": 299, "content": "x" * 5000})
    weights.write_json(folder / "tokenizer.json", content)
    with says("has 5000 characters, more than 4096"):
        load(folder)


def test_special_tokens_that_are_cut_as_text_are_another_tokenizer(whole, folder):
    edit(folder, "tokenizer_config.json", split_special_tokens=True)
    one, other = (speech.digests(load(path).tokenizer) for path in (whole, folder))
    assert one["tokenizer"] != other["tokenizer"]
    assert one["template"] == other["template"]

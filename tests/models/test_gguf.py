"""GGUF files, written here from known weights and read back."""

from dataclasses import replace
from pathlib import Path

import gguf as library
import jax
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from immunax.models import families, gguf, hf, hf_config, hub, rotary, weights
from immunax.models.config import RopeScaling
from immunax.runtime.errors import UserError

GOLDEN = Path(__file__).parent / "golden"


def reference(family: str):
    config = hf_config.parse_config(weights.read_json(GOLDEN / family / "config.json"), family)
    shards = weights.find(GOLDEN / family)
    return config, hf.assemble(config, families.tensors(config), shards.read), shards


def interleave(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """What llama.cpp's converter does: row i of the first half goes to 2i, of the second to 2i + 1."""
    out = np.empty_like(rows)
    size = len(rows) // n_heads
    for row in range(len(rows)):
        head, place = divmod(row, size)
        half, index = divmod(place, size // 2)
        out[head * size + 2 * index + half] = rows[row]
    return out


def write(path: Path, family: str, quantization=None, change: dict | None = None, tensors: dict | None = None) -> Path:
    config, _, shards = reference(family)
    writer = library.GGUFWriter(path, config.family)
    metadata = {
        "block_count": config.n_layers,
        "context_length": config.max_positions,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta,
    }
    if family == "gemma2":
        metadata |= {
            "attn_logit_softcapping": config.attention_cap,
            "final_logit_softcapping": config.logit_cap,
            "attention.sliding_window": config.sliding_window,
        }
    for key, value in (metadata | (change or {})).items():
        if value is not None:
            add = writer.add_string if isinstance(value, str) else writer.add_float32
            (writer.add_uint32 if isinstance(value, int) else add)(f"{config.family}.{key}", value)
    add_tokenizer(writer)
    architecture = next(each for each, name in library.MODEL_ARCH_NAMES.items() if name == config.family)
    theirs = library.get_tensor_name_map(architecture, config.n_layers)
    for name, entry in shards.entries.items():
        array = shards.read(name, entry.shape)
        heads = {"q_proj": config.n_heads, "k_proj": config.n_kv_heads}.get(name.split(".")[-2])
        if config.family == "llama" and heads:
            array = interleave(array, heads)
        if config.family == "gemma2" and "norm" in name:
            array = array + 1
        name = theirs.get_name(name, (".weight", ".bias"))
        if quantization is not None and array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(name, library.quantize(array, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(name, array)
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer) -> None:
    tokens = ["<s>", "</s>", *sorted(ByteLevel.alphabet())[:100], "!!"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 101])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


@pytest.mark.parametrize("family", ["llama2", "qwen2", "qwen3", "smollm2", "olmo2"])
def test_a_file_gives_the_config_and_weights_it_was_made_of(tmp_path, family):
    config, params, _ = reference(family)
    file = gguf.open_file(write(tmp_path / "model.gguf", family))
    assert gguf.parse_config(file) == config
    jax.tree.map(np.testing.assert_array_equal, gguf.load_params(file, config), params)


def test_a_gemma_2_file_gives_what_its_metadata_leave_out_too(tmp_path):
    config, params, _ = reference("gemma2")
    file = gguf.open_file(write(tmp_path / "model.gguf", "gemma2"))
    # llama.cpp divides scores by the root of a head's size, but for the 27B model.
    assert gguf.parse_config(file) == replace(config, query_pre_attn_scalar=config.head_dim)
    loaded = gguf.load_params(file, config)
    # The file has 1 + scale, rounded.
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-7), loaded, params)


def test_a_quantized_file_gives_weights_within_half_a_step(tmp_path):
    config, params, _ = reference("llama2")
    file = gguf.open_file(write(tmp_path / "model.gguf", "llama2", library.GGMLQuantizationType.Q8_0))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(params))
    # Q8_0 spreads 127 steps over the largest of 32 values, and keeps the step itself in float16.
    allowed = 0.5 * largest / 127 * 1.1
    loaded = gguf.load_params(file, config)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=allowed), loaded, params)
    assert np.any(loaded["lm_head"]["kernel"] != params["lm_head"]["kernel"])


def test_llama_3_scaling_is_recognised_by_its_frequency_divisors(tmp_path):
    config, _, _ = reference("llama2")
    scaling = RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    scaled = type(config)(**{**vars(config), "rope_scaling": scaling, "rope_theta": 500000.0})
    plain = type(config)(**{**vars(config), "rope_theta": 500000.0})
    divisors = rotary.frequencies(plain) / rotary.frequencies(scaled)
    change = {"rope.freq_base": 500000.0}
    path = write(tmp_path / "good.gguf", "llama2", change=change, tensors={"rope_freqs.weight": divisors})
    assert gguf.parse_config(gguf.open_file(path)).rope_scaling == scaling
    path = write(tmp_path / "bad.gguf", "llama2", change=change, tensors={"rope_freqs.weight": divisors**2})
    with pytest.raises(UserError, match="not Llama 3's rotary scaling"):
        gguf.parse_config(gguf.open_file(path))


def test_linear_scaling_is_read(tmp_path):
    change = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    path = write(tmp_path / "model.gguf", "llama2", change=change)
    assert gguf.parse_config(gguf.open_file(path)).rope_scaling == RopeScaling("linear", 4.0)


@pytest.mark.parametrize(
    ("change", "tensors", "named"),
    [
        ({"expert_count": 8}, {}, "llama.expert_count is set"),
        ({"rope.scaling.type": "yarn"}, {}, "'yarn'"),
        ({"rope.dimension_count": 4}, {}, "rotates 4 of 8"),
        ({"block_count": None}, {}, "llama.block_count is None"),
        ({"block_count": 3}, {}, "'blk.2.attn_norm.weight' is missing"),
        ({"feed_forward_length": 64}, {}, r"'blk.0.ffn_gate.weight' has shape \[48, 32\], the metadata say \[64, 32\]"),
        ({}, {"blk.0.attn_q.bias": np.zeros(32, np.float32)}, "'blk.0.attn_q.bias' has no place"),
    ],
)
def test_a_variant_that_is_not_supported_is_refused_by_name(tmp_path, change, tensors, named):
    file = gguf.open_file(write(tmp_path / "model.gguf", "llama2", change=change, tensors=tensors))
    with pytest.raises(UserError, match=named) as caught:
        gguf.load_params(file, gguf.parse_config(file))
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(tmp_path):
    writer = library.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="'mamba' is not supported; supported are llama, qwen2, qwen3"):
        gguf.parse_config(gguf.open_file(tmp_path / "model.gguf"))


@pytest.mark.parametrize("kept", [0, 3, 30, 3000, -1000])
def test_a_file_cut_short_is_refused(tmp_path, kept):
    path = write(tmp_path / "model.gguf", "llama2")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="not a readable GGUF file") as caught:
        gguf.open_file(path)
    assert "\n" not in str(caught.value)


def test_a_gguf_file_becomes_a_folder_that_loads_as_the_same_model(tmp_path):
    path = write(tmp_path / "model.gguf", "llama2")
    checkpoint = hub.resolve(str(path)).load()
    assert set(checkpoint.digests) == {"model.gguf"}
    assert checkpoint.tokenizer.model_max_length == 64
    hub.export(tmp_path / "out", checkpoint, checkpoint.params)
    again = hub.resolve(str(tmp_path / "out")).load()
    assert again.config == checkpoint.config
    assert again.generation_config == {"bos_token_id": 0, "eos_token_id": 1}
    assert again.tokenizer("!!!").input_ids == checkpoint.tokenizer("!!!").input_ids
    jax.tree.map(np.testing.assert_array_equal, again.params, checkpoint.params)


def split_write(folder: Path, parts: int) -> list[Path]:
    """The stored llama as llama.cpp's gguf-split leaves it: the metadata in the first part, the tensors shared out."""
    whole = library.GGUFReader(write(folder / "whole.gguf", "llama2"))
    tensors = [*whole.tensors]
    paths = []
    for number in range(parts):
        paths.append(folder / f"model-{number + 1:05d}-of-{parts:05d}.gguf")
        writer = library.GGUFWriter(paths[-1], "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", parts)
        if number == 0:
            for key, field in whole.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    kinds = [field.types[0], *field.types[1:2]]
                    writer.add_key_value(key, field.contents(), *kinds)
        for tensor in tensors[number::parts]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_a_file_in_parts_is_read_whole_whichever_part_is_named(tmp_path):
    parts = split_write(tmp_path, 3)
    whole = hub.resolve(str(tmp_path / "whole.gguf")).load()
    for part in parts[:2]:
        again = hub.resolve(str(part)).load()
        assert set(again.digests) == {each.name for each in parts}
        assert again.config == whole.config
        jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_a_part_that_is_missing_or_renamed_is_named(tmp_path):
    parts = split_write(tmp_path, 3)
    parts[1].unlink()
    with pytest.raises(UserError, match=r"part model-00002-of-00003\.gguf is not beside it; .* all 3 parts"):
        gguf.open_file(parts[0])
    parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(UserError, match="is one of 3 parts, but its name does not say which"):
        gguf.open_file(tmp_path / "renamed.gguf")


@pytest.mark.parametrize("key_length", [8, None])
def test_a_head_that_is_rotated_in_part_is_refused_also_where_its_size_is_implied(tmp_path, key_length):
    path = write(
        tmp_path / "model.gguf", "llama2", change={"attention.key_length": key_length, "rope.dimension_count": 4}
    )
    with pytest.raises(UserError, match="rotates 4 of 8 dimensions"):
        hub.resolve(str(path)).load()


def test_a_layer_count_past_the_tensors_is_refused(tmp_path):
    path = write(tmp_path / "model.gguf", "llama2", change={"block_count": 1000})
    with pytest.raises(UserError, match=r"says 1000 layers, but the weights have \d+ tensors"):
        hub.resolve(str(path)).load()


def test_a_tensor_that_is_not_finite_is_refused(tmp_path):
    path = write(tmp_path / "model.gguf", "llama2")
    reader = library.GGUFReader(path, "r+")
    [up] = [tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight"]
    up.data[3, 4] = np.nan
    reader.data.flush()
    with pytest.raises(UserError, match=r"model\.gguf: tensor 'blk\.1\.ffn_up\.weight' has values that are NaN"):
        hub.resolve(str(path)).load()


@pytest.mark.parametrize(
    ("at", "number", "reason"),
    [
        (0, 1, "does not begin with GGUF"),
        (4, 3 << 24, "the other byte order"),
        (8, 2**60, "more bytes than it has"),
        (16, 2**62, "more bytes than it has"),
        (24, 2**63, "more bytes than it has"),
    ],
)
def test_counts_that_the_file_cannot_hold_are_refused_at_once(tmp_path, at, number, reason):
    path = write(tmp_path / "model.gguf", "llama2")
    raw = bytearray(path.read_bytes())
    size = 4 if at < 8 else 8
    raw[at : at + size] = number.to_bytes(size, "little")
    path.write_bytes(raw)
    with pytest.raises(UserError, match=reason):
        gguf.open_file(path)


def test_an_array_longer_than_the_file_is_refused_in_the_time_of_the_file(tmp_path):
    path = write(tmp_path / "model.gguf", "llama2")
    raw = path.read_bytes()
    # Behind the name of an array: its kind, that of its items, and their number.
    at = raw.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 8
    for number in (2**40, 2**63):
        path.write_bytes(raw[:at] + number.to_bytes(8, "little") + raw[at + 8 :])
        with pytest.raises(UserError, match="more bytes than it has"):
            gguf.open_file(path)


def test_tensors_on_the_same_bytes_are_refused(tmp_path):
    path = write(tmp_path / "model.gguf", "llama2")
    raw = path.read_bytes()
    name = b"blk.1.attn_norm.weight"
    at = raw.index(name) + len(name) + 4 + 8 + 4
    path.write_bytes(raw[:at] + bytes(8) + raw[at + 8 :])
    with pytest.raises(UserError, match="lie on the same bytes"):
        gguf.open_file(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attention.head_count_kv": 3}, "key/value heads that divide"),
        ({"attention.layer_norm_rms_epsilon": "x"}, "expected a positive number"),
        ({"block_count": "many"}, "expected a positive whole number"),
    ],
)
def test_metadata_of_another_kind_is_one_line(tmp_path, change, reason):
    path = write(tmp_path / "model.gguf", "llama2", change=change)
    with pytest.raises(UserError, match=reason):
        gguf.parse_config(gguf.open_file(path))

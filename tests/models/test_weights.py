"""Safetensors folders: what is written is read back, and what is damaged is named."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from immunax.models import weights
from immunax.runtime.errors import UserError

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.linspace(-1, 1, 5, dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    weights.write_shards(tmp_path, [("a", A), ("b", B)], "float32", 10**9)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    weights.write_shards(tmp_path, [("a", A), ("b", B)], "float32", 24)
    return tmp_path


def says(pattern: str):
    return pytest.raises(UserError, match=pattern)


def test_one_file_is_written_when_everything_fits(folder):
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    np.testing.assert_array_equal(weights.find(folder).read("a", (2, 3)), A)


def test_the_library_reads_what_is_written(folder):
    loaded = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(loaded["a"], A)
    np.testing.assert_array_equal(loaded["b"], B)


def test_a_transposed_view_is_written_in_its_own_order(tmp_path):
    weights.write_shards(tmp_path, [("a", A.T)], "float32", 10**9)
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["a"], A.T)


def test_shards_are_named_and_indexed_as_on_the_hub(sharded):
    index = json.loads((sharded / weights.INDEX).read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index == {"metadata": {"total_size": 44}, "weight_map": {"a": first, "b": second}}
    shards = weights.find(sharded)
    assert shards.files == (first, second)
    np.testing.assert_array_equal(shards.read("b", (5,)), B)


@settings(max_examples=30)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(), elements=st.floats(-6e4, 6e4, width=32)),
    st.sampled_from(list(weights.DTYPES)),
)
def test_values_are_rounded_to_the_nearest_of_the_dtype(tmp_path_factory, array, dtype):
    folder = tmp_path_factory.mktemp("rounded")
    weights.write_shards(folder, [("a", array)], dtype, 10**9)
    shards = weights.find(folder)
    assert shards.dtype == dtype
    np.testing.assert_array_equal(shards.read("a", array.shape), array.astype(weights.DTYPES[dtype]))


def test_bfloat16_survives_the_way_through_float32_bit_for_bit(tmp_path):
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80].view(ml_dtypes.bfloat16)
    weights.write_shards(tmp_path, [("a", finite.astype(np.float32))], "bfloat16", 10**9)
    read = weights.find(tmp_path).read("a", finite.shape)
    np.testing.assert_array_equal(read.view(np.uint16), finite.view(np.uint16))


def test_a_mixture_of_dtypes_counts_as_the_one_that_holds_all(tmp_path):
    save_file({"a": A.astype(np.float16), "b": B.astype(ml_dtypes.bfloat16)}, tmp_path / "model.safetensors")
    assert weights.find(tmp_path).dtype == "float32"


def test_float16_refuses_what_would_become_infinite(tmp_path):
    with says("'a' has values past 65504"):
        weights.write_shards(tmp_path, [("a", 1e5 * A)], "float16", 10**9)


def test_an_unknown_dtype_is_refused_with_a_suggestion(tmp_path):
    with says("'float23': expected one of .*Did you mean 'float32'"):
        weights.write_shards(tmp_path, [("a", A)], "float23", 10**9)


def test_a_folder_without_weights_is_named(tmp_path):
    with says("no weights; expected model.safetensors"):
        weights.find(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with says(r"pytorch_model\.bin\); only safetensors"):
        weights.find(tmp_path)


def test_shards_without_an_index_are_refused(sharded):
    (sharded / weights.INDEX).unlink()
    with says(r"neither model\.safetensors nor"):
        weights.find(sharded)


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_file_cut_short_is_refused(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with says("damaged or incomplete") as caught:
        weights.find(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_named_with_the_nearest(folder):
    with says("tensor 'aa' is missing"):
        weights.find(folder).read("aa", (2, 3))


def test_a_wrong_shape_is_named(folder):
    with says(r"'a' has shape \[2, 3\], expected \[3, 2\]"):
        weights.find(folder).read("a", (3, 2))


@pytest.mark.parametrize("dtype", [np.float64, np.int8, ml_dtypes.float8_e4m3fn])
def test_a_dtype_of_no_weight_is_refused(tmp_path, dtype):
    save_file({"a": A.astype(dtype)}, tmp_path / "model.safetensors")
    with says("'a' has dtype .*; expected one of F32, BF16, F16"):
        weights.find(tmp_path)


def test_a_shard_that_the_index_names_and_the_folder_lacks_is_refused(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with says(r"names model-00002-of-00002\.safetensors, which is not in the folder"):
        weights.find(sharded)


def test_an_index_cannot_point_out_of_its_folder(sharded):
    outside = sharded.parent / "outside.safetensors"
    (sharded / "model-00001-of-00002.safetensors").rename(outside)
    (sharded / weights.INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with says(r"names \.\./outside\.safetensors, which is not in the folder"):
        weights.find(sharded)


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(sharded):
    index = json.loads((sharded / weights.INDEX).read_text())
    index["weight_map"]["c"] = index["weight_map"]["a"]
    (sharded / weights.INDEX).write_text(json.dumps(index))
    with says("tensor 'c' is in model-00001"):
        weights.find(sharded)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_a_malformed_index_is_refused(sharded, text):
    (sharded / weights.INDEX).write_text(text)
    with says(r"index\.json"):
        weights.find(sharded)


def test_a_shard_by_another_name_than_safetensors_is_refused(sharded):
    index = json.loads((sharded / weights.INDEX).read_text())
    first = min(index["weight_map"].values())
    (sharded / first).rename(sharded / "README.md")
    index["weight_map"] = {name: "README.md" if file == first else file for name, file in index["weight_map"].items()}
    (sharded / weights.INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names README.md, which is no .safetensors file"):
        weights.find(sharded)


@pytest.mark.parametrize("length", [1 << 40, 2**64 - 1, 17 << 20])
def test_a_header_longer_than_the_file_is_refused_before_it_is_read(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with says(f"a header of {length} bytes"):
        weights.find(folder)

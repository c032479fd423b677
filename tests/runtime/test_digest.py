import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immunax.runtime import digest
from immunax.runtime.errors import UserError

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest.of_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert digest.of_folder(tmp_path) == {"a": hashlib.sha256(b"abc").hexdigest()}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent"):
        digest.of_file(tmp_path / "absent")


@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_matter(value):
    assert digest.of_json(value) == digest.of_json(dict(reversed(value.items())))


@given(JSON, JSON)
@example(0.0, -0.0)
@example(1, True)
@example(1, 1.0)
def test_other_values_have_other_digests(left, right):
    assert (digest.of_json(left) == digest.of_json(right)) == (_typed(left) == _typed(right))


def _typed(value):
    """Python's own equality takes 1, 1.0 and True, and 0.0 and -0.0, for the same."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else repr(value)


def test_a_json_digest_is_the_same_in_another_process():
    program = "from immunax.runtime import digest; print(digest.of_json({'b': (1, 2.5), 'a': {'x', }.pop()}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.strip() == digest.of_json({"a": "x", "b": [1, 2.5]})


def test_a_tree_digest_sees_values_shapes_dtypes_and_names():
    tree = {"a": np.arange(6, dtype=np.float32), "b": jax.random.key(0)}
    same = {"b": jax.random.key(0), "a": jnp.arange(6, dtype=jnp.float32)}
    assert digest.of_tree(tree) == digest.of_tree(same)
    others = [
        {**tree, "a": tree["a"].reshape(2, 3)},
        {**tree, "a": tree["a"].view(np.int32)},
        {**tree, "a": tree["a"] + np.float32(1e-6)},
        {**tree, "b": jax.random.key(1)},
        {"c": tree["a"], "b": tree["b"]},
    ]
    assert len({digest.of_tree(other) for other in [tree, *others]}) == 6


def test_bfloat16_and_scalars_have_digests():
    assert digest.of_tree([jnp.ones(3, jnp.bfloat16), 1]) != digest.of_tree([jnp.ones(3, jnp.bfloat16), 2])


def test_a_folder_is_digested_where_it_holds_plain_files_and_links_to_them_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "file")
    assert digest.of_folder(folder) == {"link": digest.of_file(tmp_path / "file")}
    strange = {"fifo": "a FIFO", "device": "a device", "linked": "a link to a folder", "nothing": "is not there"}
    for name, reason in strange.items():
        if name == "fifo":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to({"device": "/dev/null", "linked": tmp_path, "nothing": "nowhere"}[name])
        with pytest.raises(UserError, match=reason):
            digest.of_folder(folder)
        (folder / name).unlink()


def test_a_folder_however_deep_is_digested(tmp_path):
    place = tmp_path
    for _ in range(1200):
        place /= "d"
        place.mkdir()
    (place / "file").write_text("x")
    assert list(digest.of_folder(tmp_path)) == ["d/" * 1200 + "file"]
    (place / "file").unlink()
    for _ in range(1200):  # what cleans up behind the tests goes down by recursion
        place.rmdir()
        place = place.parent


@pytest.mark.skipif(os.geteuid() == 0, reason="nobody refuses root a folder")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match="closed: cannot be listed"):
        digest.of_folder(tmp_path)

import errno
import math
import os
import re
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.runtime import cache
from immunax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))


def fetch(made, key, value=1):
    def make():
        made.append(key)
        return {"w": {"a": jnp.full((2, 3), value, jnp.bfloat16), "b": np.arange(4, dtype=np.int32)}}

    return cache.get_or_make("tree", key, make, cache.read_arrays, cache.write_arrays, [])


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache.root() == tmp_path / "cache"
    monkeypatch.delenv("IMMUNAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "immunax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "immunax"


def test_a_thing_is_made_once_and_read_back_identical():
    made = []
    first, again, other = fetch(made, {"k": 1}), fetch(made, {"k": 1}), fetch(made, {"k": 2}, value=2)
    assert made == [{"k": 1}, {"k": 2}]
    assert jax.tree.map(lambda x: x.dtype, again) == {"w": {"a": jnp.bfloat16, "b": np.int32}}
    jax.tree.map(np.testing.assert_array_equal, again, first)
    assert other["w"]["a"][0, 0] == 2


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_entry_is_made_again_with_a_warning(damage):
    made = []
    fetch(made, {"k": 1})
    (file,) = cache.root().rglob("arrays.safetensors")
    if damage == "remove":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        again = fetch(made, {"k": 1})
    assert len(made) == 2
    np.testing.assert_array_equal(again["w"]["b"], np.arange(4))
    fetch(made, {"k": 1})
    assert len(made) == 2


def test_a_failure_to_make_leaves_no_entry():
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.get_or_make("tree", {}, fail, cache.read_arrays, cache.write_arrays, [])
    assert len(fetch(made := [], {})) == 1
    assert made == [{}]


def test_two_at_once_make_it_once():
    made = []

    def slow():
        made.append(1)
        time.sleep(0.2)
        return {"w": np.ones(2)}

    def work():
        cache.get_or_make("tree", {"k": 3}, slow, cache.read_arrays, cache.write_arrays, [])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file is a file; choose another folder: set IMMUNAX_CACHE=FOLDER"):
        cache.enable_compilation_cache()
    with pytest.raises(UserError, match="set IMMUNAX_CACHE"):
        fetch([], {"k": 1})
    monkeypatch.setenv("IMMUNAX_CACHE", "/proc/x")
    with pytest.raises(UserError, match="cannot write /proc/x/xla: there can be no such folder"):
        cache.enable_compilation_cache()


def refusing(code):
    """What the disk answers from now on."""

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_cache_that_takes_nothing_is_read_and_what_it_lacks_is_made_without_keeping_it(monkeypatch, capfd, code):
    made = []
    fetch(made, {"k": 1})
    with monkeypatch.context() as patch:
        patch.setattr(cache.lock, "held", refusing(code))
        np.testing.assert_array_equal(fetch(made, {"k": 1})["w"]["b"], np.arange(4))
        assert made == [{"k": 1}]
        for _ in range(2):
            again = fetch(made, {"k": 2}, value=2)
            assert again["w"]["a"].dtype == jnp.bfloat16
            assert isinstance(again["w"]["b"], jax.Array)
    assert made == [{"k": 1}, {"k": 2}, {"k": 2}]
    said = capfd.readouterr().err
    assert re.fullmatch(r"the cache keeps nothing new, .*: cannot write \S+: .*: set IMMUNAX_CACHE=FOLDER\n", said)
    fetch(made, {"k": 2}, value=2)
    fetch(made, {"k": 2}, value=2)
    assert len(made) == 4


def test_where_nothing_at_all_can_be_written_one_line_says_so(monkeypatch):
    monkeypatch.setattr(cache.lock, "held", refusing(errno.ENOSPC))
    monkeypatch.setattr(cache.tempfile, "TemporaryDirectory", refusing(errno.ENOENT))
    with pytest.raises(UserError, match=r"the disk is full; .*: set IMMUNAX_CACHE=FOLDER"):
        fetch([], {"k": 1})


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_compiled_programs_are_read_where_no_more_can_be_kept(monkeypatch, capfd, code):
    cache.enable_compilation_cache()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    with monkeypatch.context() as patch:
        patch.setattr(cache.tempfile, "TemporaryFile", refusing(code))
        folder = cache.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == math.inf
    assert capfd.readouterr().err.count("the cache keeps nothing new") == 1
    cache.enable_compilation_cache()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0


def test_compiled_programs_are_kept_where_jax_is_told_to_keep_them(monkeypatch, tmp_path, capfd):
    with monkeypatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
        found, told = cache.enable_compilation_cache(), jax.config.jax_compilation_cache_dir
        patch.setattr(cache.tempfile, "TemporaryFile", refusing(errno.EROFS))
        cache.enable_compilation_cache()
    assert (found, told) == (tmp_path / "mine", str(tmp_path / "mine"))
    assert "set JAX_COMPILATION_CACHE_DIR=FOLDER" in capfd.readouterr().err
    assert cache.enable_compilation_cache() == cache.root() / "xla"


PROGRAM = """
import jax, jax.numpy as jnp
from immunax.runtime.cache import enable_compilation_cache
enable_compilation_cache()
assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
print(jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((8, 8))), len(hits))
"""


def test_a_second_process_reuses_compiled_programs_without_noise():
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ, check=True)
        for _ in range(2)
    ]
    (first, misses), (second, hits) = (run.stdout.split() for run in runs)
    assert first == second
    assert int(misses) == 0
    assert int(hits) > 0
    assert runs[1].stderr == ""


def test_other_code_makes_it_again(monkeypatch):
    made = []
    fetch(made, {"k": 1})
    monkeypatch.setattr(cache, "code_digest", lambda parts: "edited")
    fetch(made, {"k": 1})
    assert len(made) == 2


def test_what_another_job_has_kept_meanwhile_stays_in_its_place(tmp_path):
    fetch([], {"k": 1})
    (file,) = cache.root().rglob("arrays.safetensors")
    before = file.stat().st_ino
    with cache._place(file.parent) as folder:
        (folder / "arrays.safetensors").write_text("the same, made by this job")
    assert file.stat().st_ino == before
    file.write_text("damaged")
    with cache._place(file.parent) as folder:
        (folder / "made").write_text("anew")
    assert [each.name for each in file.parent.iterdir()] == ["made"]

import errno
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from immunax.runtime import mesh as meshes
from immunax.runtime.checkpoint import Checkpoints, DamagedError
from immunax.runtime.errors import UserError


def make_state(seed=0):
    key = jax.random.key(seed)
    params = {
        "norm": {"scale": jax.random.normal(key, (8,))},
        "lm_head": {"kernel": jax.random.normal(key, (8, 4), jnp.bfloat16)},
    }
    return {
        "params": params,
        "opt": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params),
        "key": jax.random.key(seed, impl="rbg"),
        "keys": jax.random.split(key, 3),
        "step": 7,
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45]),
    }


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return (str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes())
    return (str(np.asarray(leaf).dtype), np.asarray(leaf).tobytes())


def assert_identical(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert jax.tree.map(bits, left) == jax.tree.map(bits, right)


def abstract(state):
    def one(leaf):
        sharding = getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding) if sharding else leaf

    return jax.tree.map(one, state)


def test_a_restored_state_is_bit_identical(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        assert checkpoints.save(3, state)
        assert not checkpoints.save(3, make_state(1))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 3
        assert_identical(checkpoints.restore(3, make_state(1)), state)
        restored = checkpoints.restore(3, abstract(make_state(1)))
        assert_identical(restored, state)
        assert isinstance(restored["step"], int)


def test_a_state_donated_right_after_the_save_is_kept_as_it_was(tmp_path):
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    state = {"w": jnp.arange(1 << 22, dtype=jnp.float32)}
    expected = np.array(state["w"])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        state["w"] = overwrite(state["w"]).block_until_ready()
        np.testing.assert_array_equal(checkpoints.restore(1, abstract(state))["w"], expected)


def test_the_restored_arrays_lie_where_the_pattern_says(tmp_path):
    mesh = meshes.build(meshes.MeshSpec(fsdp=4, tensor=2))
    kernel = np.arange(64, dtype=np.float32).reshape(8, 8)
    placed = meshes.shard({"q_proj": {"kernel": kernel}}, mesh)
    other = NamedSharding(mesh, PartitionSpec("tensor", None))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, placed)
        like = {"q_proj": {"kernel": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=other)}}
        again = checkpoints.restore(0, like)["q_proj"]["kernel"]
    assert again.sharding == other
    np.testing.assert_array_equal(again, kernel)


def test_what_was_tied_to_no_device_goes_on_beside_arrays_on_a_mesh(tmp_path):
    mesh = meshes.build(meshes.MeshSpec(fsdp=8))
    state = {"kernel": meshes.shard(np.ones((8, 8)), mesh), "step": jnp.int32(3), "key": jax.random.key(1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        again = checkpoints.restore(1, state)
    noise = jax.jit(lambda each: each["kernel"] + each["step"] + jax.random.normal(each["key"]))
    np.testing.assert_array_equal(noise(again), noise(state))


def test_the_last_and_the_best_are_both_kept(tmp_path):
    losses = [5.0, 1.0, 4.0, float("nan"), 2.0, 3.0, 6.0]
    with Checkpoints(tmp_path, keep_last=2, keep_best=2, metric="loss") as checkpoints:
        for step, loss in enumerate(losses):
            checkpoints.save(step, {"w": jnp.ones(2)}, {"loss": loss})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 4, 5, 6]


def test_the_best_are_still_known_after_a_new_start(tmp_path):
    for losses in ({0: 5.0, 1: 1.0, 2: 4.0}, {3: 3.0, 4: 6.0}):
        with Checkpoints(tmp_path, keep_best=1, metric="loss") as checkpoints:
            for step, loss in losses.items():
                checkpoints.save(step, {"w": jnp.ones(2)}, {"loss": loss})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 4]


def flip(folder, raw):
    """Changes one bit of some bytes on disk, in each file that holds them."""
    files = [file for file in folder.rglob("*") if file.is_file() and raw in file.read_bytes()]
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[content.find(raw) + len(raw) // 2] ^= 1
        file.write_bytes(content)


def three_steps(folder, **options):
    """Checkpoints of steps 1 to 3, the first of which is not kept; the states by step."""
    states = {
        step: {"params": {"w": jax.random.normal(jax.random.key(step), (256, 256))}, "step": step} for step in (1, 2, 3)
    }
    with Checkpoints(folder, keep_last=2, **options) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state)
    return states


def test_one_flipped_bit_is_never_restored(tmp_path):
    states = three_steps(tmp_path)
    flip(tmp_path / "3", np.asarray(states[3]["params"]["w"]).tobytes())
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(DamagedError, match=r"checkpoint \S+/3 is damaged \('params.w' is not what was written\)"):
            checkpoints.restore(3, states[3])
        with pytest.raises(DamagedError, match=r"'params.w'"):
            checkpoints.restore_part(3, "params", states[3]["params"])
        assert_identical(checkpoints.restore(2, states[3]), states[2])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
@pytest.mark.parametrize("part", ["d/", "_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_it(tmp_path, capfd, part, damage):
    states = three_steps(tmp_path)
    for file in [each for each in (tmp_path / "3").rglob("*") if each.is_file() and part in str(each)]:
        raw = file.read_bytes()
        if damage == "remove":
            file.unlink()
        else:
            broken = {"cut": raw[: len(raw) // 2], "empty": b"", "flip": bytes(byte ^ 1 for byte in raw)}
            file.write_bytes(broken[damage])
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        step, found = checkpoints.restore_newest(states[1])
        assert step == 2
        assert_identical(found, states[2])
        assert checkpoints.steps() == [2]
        # The step is done again, and its checkpoint is not taken for there already.
        assert checkpoints.save(3, states[3])
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
    said = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert re.fullmatch(r"checkpoint \S+/3 is damaged \(.+\): going on from step 2", said[0])


def test_where_all_are_damaged_none_is_removed_and_one_line_says_so(tmp_path):
    states = three_steps(tmp_path)
    for step in (2, 3):
        flip(tmp_path / str(step), np.asarray(states[step]["params"]["w"]).tobytes())
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        with pytest.raises(UserError, match=r"3 is damaged .* so is every other: delete \S+ to begin anew"):
            checkpoints.restore_newest(states[1])
        assert checkpoints.steps() == [2, 3]
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore_newest(states[1]) is None


def test_a_checkpoint_of_another_model_is_not_taken_for_a_damaged_one(tmp_path):
    three_steps(tmp_path)
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        with pytest.raises(UserError, match="another configuration") as caught:
            checkpoints.restore_newest({"params": {"w": jnp.ones(3)}, "step": 0})
        assert not isinstance(caught.value, DamagedError)
        assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize("about", [{"metrics": "low"}, {"metrics": {"loss": "low"}}, {"metrics": [1]}])
def test_what_stands_beside_a_checkpoint_and_is_no_number_is_no_traceback(tmp_path, monkeypatch, about):
    three_steps(tmp_path)
    read = Checkpoints._about
    monkeypatch.setattr(Checkpoints, "_about", lambda self, step: about if step == 2 else read(self, step))
    with Checkpoints(tmp_path, keep_last=2, keep_best=1, metric="loss") as checkpoints:
        assert checkpoints.steps() == [2, 3]


def test_a_damaged_checkpoint_that_cannot_be_removed_is_passed_over(tmp_path, monkeypatch):
    states = three_steps(tmp_path)
    flip(tmp_path / "3", np.asarray(states[3]["params"]["w"]).tobytes())
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:

        def refuse(step):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(checkpoints._manager, "delete", refuse)
        assert checkpoints.restore_newest(states[1])[0] == 2


KILLED_MIDWAY = """
import os, signal, sys
import jax.numpy as jnp
from immunax.runtime.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep_last=3)
checkpoints.save(1, {"w": jnp.arange(4.0)})
checkpoints.wait()
checkpoints.save(2, {"w": jnp.ones(1 << 25)})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_half_written_checkpoint_is_never_taken_for_whole(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED_MIDWAY, str(tmp_path)], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith("2")]
    assert leftovers
    assert "2" not in leftovers
    state = {"w": jnp.arange(4.0)}
    with Checkpoints(tmp_path, keep_last=3) as checkpoints:
        assert checkpoints.steps() == [1]
        checkpoints.save(2, {"w": jnp.arange(4.0) + 1})
        np.testing.assert_array_equal(checkpoints.restore(2, state)["w"], np.arange(4.0) + 1)
    assert sorted(path.name for path in tmp_path.iterdir() if "tmp" in path.name) == []


def test_what_cannot_be_restored_is_told_in_one_line(tmp_path):
    state = {"w": jnp.arange(1000.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        with pytest.raises(UserError, match=r"no checkpoint of step 2 .*there are: 1"):
            checkpoints.restore(2, state)
        with pytest.raises(UserError, match="has no 'v'"):
            checkpoints.restore(1, {**state, "v": jnp.ones(1)})
        with pytest.raises(UserError, match="also has 'w'"):
            checkpoints.restore(1, {})
        with pytest.raises(UserError, match=r"float32\[1000\], this run expects float32\[4\]"):
            checkpoints.restore(1, {"w": jnp.ones(4)})
        for file in (tmp_path / "1").rglob("d/*"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match="1 is damaged"):
            checkpoints.restore(1, state)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("Error writing: No space left on device")]
)
def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(UserError, match="the disk is full"):
            checkpoints.save(1, {"w": jnp.ones(1)})


def test_what_is_only_read_is_left_as_another_process_writes_it(tmp_path):
    state = {"params": {"w": jnp.arange(4.0)}, "step": 1}
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, state)
    unfinished = tmp_path / "run" / "2.orbax-checkpoint-tmp" / "default"
    unfinished.mkdir(parents=True)
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert checkpoints.latest() == 1
        found = checkpoints.restore_part(1, "params", {"w": jnp.zeros(4)})
        np.testing.assert_array_equal(found["w"], np.arange(4.0))
        with pytest.raises(ValueError, match="opened to read only"):
            checkpoints.save(3, state)
    assert unfinished.is_dir()
    with Checkpoints(tmp_path / "absent", read_only=True) as checkpoints:
        assert checkpoints.latest() is None
    assert not (tmp_path / "absent").exists()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_save_refused_at_the_end_is_told_in_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "close", full)
        with pytest.raises(UserError, match="the disk is full"):
            checkpoints.close()
    checkpoints.close()


def test_a_save_refused_at_the_end_does_not_hide_what_came_first(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "close", full)
        with pytest.raises(ZeroDivisionError), checkpoints:
            raise ZeroDivisionError
    checkpoints.close()


def test_the_echoes_of_a_refused_save_are_silent_and_nothing_else_is(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    for _ in range(2):
        Checkpoints(tmp_path).close()
    echo = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"))
    other = SimpleNamespace(exc_value=RuntimeError("another"))
    for lost in (echo, other):
        sys.unraisablehook(lost)
    assert shown == [other]


def test_keeping_the_best_needs_a_metric(tmp_path):
    with pytest.raises(UserError, match="keep_best=1 needs metric"):
        Checkpoints(tmp_path, keep_best=1)

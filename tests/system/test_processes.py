"""The commands as several processes: they leave what one process does."""

import json
import signal
import time

import numpy as np
import processes
import pytest
import tiny_model
from logged import computed
from processes import SEARCH, TRAIN
from safetensors.numpy import load_file

TELLING = """
import sys
import jax.numpy
from immunax.runtime import distributed, watch
watch._MOST_SECONDS = 1e-6
distributed.begin(distributed.Distributed(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]), 20.0), dict)
jax.numpy.zeros(3).sum().block_until_ready()
"""
"""A process of a job that does next to nothing, and never rests from telling the other that it lives."""
SAVING = """
import logging, resource, sys
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from immunax.runtime import distributed
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.ending import ended_with_others
from immunax.runtime.one_line import in_one_line
port, index, folder, limited = sys.argv[1:]
logging.disable()
with ended_with_others(), in_one_line():
    distributed.begin(distributed.Distributed(f"localhost:{port}", 2, int(index), 20.0), dict)
    split = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec("x"))
    values = np.random.default_rng(0).normal(size=4096)
    state = {"x": jax.make_array_from_callback(values.shape, split, lambda at: values[at])}
    with Checkpoints(folder) as kept:
        kept.save(1, state)
        kept.wait()
        if index == limited:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        kept.save(2, state)
        kept.save(3, state)
"""
"""A process of a job that saves, and may write files of 64 bytes from the second save on where it is the one that is limited."""
READING = """
import logging, sys
from pathlib import Path
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from immunax.runtime import distributed, together
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.ending import ended_with_others
from immunax.runtime.one_line import in_one_line
port, index, folder = sys.argv[1:]
logging.disable()
with ended_with_others(), in_one_line():
    distributed.begin(distributed.Distributed(f"localhost:{port}", 2, int(index), 20.0), dict)
    split = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec("x"))
    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    state = lambda step: {"x": jax.make_array_from_callback(values.shape, split, lambda at: step * values[at])}
    with Checkpoints(folder, keep_last=2) as kept:
        kept.save(1, state(1))
        kept.save(2, state(2))
    together.barrier()
    if index == "0":
        for file in Path(folder, "2").rglob("ocdbt.process_1/d/*"):
            file.write_bytes(b"")
    together.barrier()
    with Checkpoints(folder, keep_last=2) as kept:
        step, found = kept.restore_newest(state(0))
    for part in found["x"].addressable_shards:
        np.testing.assert_array_equal(part.data, values[part.index])
    print(step, sorted(each.name for each in Path(folder).iterdir()))
"""
"""A process of a job that reads the newest of two checkpoints; what the second process wrote of it, and alone reads, is torn."""
GOING = """
import os, sys
import jax
from immunax.runtime import distributed
port, index, gone = sys.argv[1:]
if index == gone:
    jax.distributed.initialize = lambda *_, **__: os._exit(9)
distributed.begin(distributed.Distributed(f"localhost:{port}", 2, int(index), 3.0), dict)
"""
"""A process of a job that is gone when all have met, where it is the one that goes."""
KEEPING = """
import errno, os, sys, tempfile
from pathlib import Path
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from immunax.runtime import cache, distributed
from immunax.runtime.ending import ended_with_others
from immunax.runtime.one_line import in_one_line
port, index, refused = sys.argv[1:]
def refuse(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
def write(value, folder):
    cache.write_arrays(value, folder)
    if refused == "write" and index == "0" and cache.root() in folder.parents:
        refuse()
with ended_with_others(), in_one_line():
    distributed.begin(distributed.Distributed(f"localhost:{port}", 2, int(index), 20.0), dict)
    split = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec("x"))
    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    make = lambda: {"x": jax.make_array_from_callback(values.shape, split, lambda at: values[at])}
    if refused == "open" and index == "0":
        own = tempfile.mkdtemp
        tempfile.mkdtemp = lambda *a, **k: (refuse if cache.root() in Path(k.get("dir") or ".").parents else own)(*a, **k)
    for _ in range(2):
        found = cache.get_or_make("kind", {}, make, cache.read_arrays, write, [])
        np.testing.assert_array_equal(found["x"], values)
"""
"""A process of a job that caches an array which lies on both, in a cache that refuses the first one's folder, or its file."""
EXPORTING = """
import sys
import jax
from immunax.models import hub
from immunax.runtime import distributed, mesh
from immunax.runtime.ending import ended_with_others
from immunax.runtime.one_line import in_one_line
port, index, count, out = sys.argv[1:]
with ended_with_others(), in_one_line():
    distributed.begin(distributed.Distributed(f"localhost:{port}", int(count), int(index), 20.0), dict)
    made = hub.ModelSource("model").load(mesh.build(mesh.MeshSpec(fsdp=len(jax.devices()))))
    hub.export(out, made, made.params, "bfloat16", max_shard_bytes=10_000)
"""
"""A process of a job that exports a model whose weights are split over the devices of all, in files of 10 kB."""
SPLIT = ("mesh.data=2", "mesh.fsdp=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    tiny_model.write(folder / "model")
    return folder


LONG = (*(each for each in TRAIN if not each.startswith("trainer.steps")), "trainer.steps=24")


def alone(home, *command):
    done = processes.alone(home, 2 * processes.DEVICES, *command)
    assert done.status == 0, done.err
    return done


def together(home, *command, **more):
    found = processes.ends(processes.start(home, 2, *command, **more))
    assert [each.status for each in found] == [0, 0], "\n".join(each.err for each in found)
    return found


def same_metrics(one, other):
    one, other = computed(one / "metrics.jsonl"), computed(other / "metrics.jsonl")
    assert [(each["phase"], each["step"]) for each in one] == [(each["phase"], each["step"]) for each in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine["values"] == pytest.approx(theirs["values"], rel=1e-5, abs=1e-6)


def same_weights(one, other):
    one, other = (load_file(each / "model" / "model.safetensors") for each in (one, other))
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=1e-5)


@pytest.fixture(scope="module")
def one(home):
    """The run of one process that those of several are compared with."""
    alone(home, *TRAIN, *SPLIT, "run=one")
    return home / "outputs" / "one"


def test_two_processes_train_attack_and_export_what_one_does_and_the_first_alone_prints(home, one):
    found = together(home, *TRAIN, *SPLIT, "run=two")
    assert "immunized" in found[0].out
    assert found[1].out == ""
    assert "error" not in found[1].err
    two = home / "outputs" / "two"
    same_metrics(one, two)
    same_weights(one, two)
    assert json.loads((two / "manifest.json").read_text())["platform"]["processes"] == 2
    assert {each.name for each in one.iterdir()} == {each.name for each in two.iterdir()}


@pytest.mark.slow
def test_a_search_finds_on_two_processes_what_it_finds_on_one(home):
    together(home, *SEARCH, "run=search_two")
    alone(home, *SEARCH, "run=search_one")
    one, two = (
        json.loads((home / "outputs" / f"search_{each}" / "manifest.json").read_text())["search"]
        for each in ("one", "two")
    )
    losses = [[trial.pop("harmful_nll") for trial in (*found["trials"], found["best"])] for found in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert one == two


def in_training(home, name, **more):
    """Two processes that have trained some steps."""
    started = processes.start(home, 2, *TRAIN, *SPLIT, f"run={name}", **more)
    metrics = home / "outputs" / name / "metrics.jsonl"
    while not (metrics.exists() and '"train"' in metrics.read_text()):
        assert all(each.poll() is None for each in started), processes.ends(started)
        time.sleep(0.02)
    return started


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_behind_one_step_and_another_mesh_goes_on_from_there(home, one):
    started = in_training(home, "stopped")
    started[1].send_signal(signal.SIGTERM)
    found = processes.ends(started)
    assert [each.status for each in found] == [143, 143], "\n".join(each.err for each in found)
    stopped = home / "outputs" / "stopped"
    assert max(int(each.name) for each in (stopped / "checkpoints").iterdir()) < 8
    assert not (stopped / "model").exists()
    went_on = alone(home, *TRAIN, "mesh.data=4", "run=stopped")
    assert "resuming from step" in went_on.err
    same_metrics(one, stopped)
    same_weights(one, stopped)


SHAPES = (
    (1, 8, ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")),
    (1, 4, ("mesh.fsdp=4",)),
    (2, 2, ("mesh.data=2", "mesh.fsdp=2")),
    (1, 1, ()),
)
"""Processes, devices of each, and a mesh of them."""


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_goes_on_on_ever_fewer_devices_with_the_same_numbers(home):
    alone(home, *LONG, "run=still")
    reached = []
    for count, devices, mesh in SHAPES:
        flags = [{"XLA_FLAGS": processes.environment(home, devices)["XLA_FLAGS"]}] * count
        before = len(trained(home / "outputs" / "moving"))
        started = processes.start(home, count, *LONG, *mesh, "run=moving", variables=flags)
        last = (count, devices) == (1, 1)
        while not last and len(trained(home / "outputs" / "moving")) <= before:
            assert all(each.poll() is None for each in started), processes.ends(started)
            time.sleep(0.02)
        if not last:
            started[-1].send_signal(signal.SIGTERM)
        found = processes.ends(started)
        assert [each.status for each in found] == [0 if last else 143] * count, "\n".join(each.err for each in found)
        reached.append(len(trained(home / "outputs" / "moving")))
    assert reached == sorted(set(reached))  # each has done something
    same_metrics(home / "outputs" / "still", home / "outputs" / "moving")
    same_weights(home / "outputs" / "still", home / "outputs" / "moving")


def trained(run):
    """What its metrics say of steps."""
    file = run / "metrics.jsonl"
    return [line for line in file.read_text().splitlines() if '"train"' in line] if file.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize(("end", "who"), [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_process_that_is_killed_or_hangs_is_named_by_the_others_which_end(home, end, who):
    started = in_training(home, f"lost{who}", timeout=15)
    started[who].send_signal(end)
    started[1 - who].wait(timeout=120)
    started[who].kill()
    found = processes.ends(started)[1 - who]
    assert found.status == 142, found.err
    assert f"error: process {who} on " in found.err
    assert "Traceback" not in found.err


def test_another_configuration_is_told_by_the_first_in_one_line_before_anything_is_loaded(home):
    started = processes.start(home, 2, *TRAIN, *SPLIT, "run=other", changes={1: ("seed=1",)})
    one, other = processes.ends(started)
    assert (one.status, other.status) == (2, 2)
    assert one.err.count("\n") == 1
    assert "has another command line, configuration of seed than process 0" in one.err
    assert other.err == ""
    assert not (home / "outputs" / "other").exists()


@pytest.mark.slow
def test_another_sweep_is_told_before_any_of_its_runs_begins(home):
    line = (*TRAIN, *SPLIT, "run=others", "-m")
    started = processes.start(home, 2, *line, changes={0: ("trainer.steps=2,3",), 1: ("trainer.steps=2,3,4",)})
    one, other = processes.ends(started)
    assert (one.status, other.status) == (2, 2)
    assert "has another command line than process 0" in one.err
    assert other.err == ""
    assert not (home / "outputs" / "others").exists()


@pytest.mark.slow
def test_a_mesh_that_the_devices_of_all_do_not_fill_is_told_by_the_first_in_one_line(home):
    one, other = processes.ends(processes.start(home, 2, *TRAIN, "mesh.data=3", "run=unfit"))
    assert (one.status, other.status) == (2, 2)
    assert [line for line in one.err.splitlines() if line.startswith("error: ")] == one.err.splitlines()[-1:]
    assert "needs 3 devices, this run has 4" in one.err
    assert other.err == ""


def test_a_process_that_is_not_there_is_named(home):
    (one,) = processes.ends(processes.start(home, 2, *TRAIN, "run=absent", timeout=2, absent=1))
    assert one.status == 142
    assert "process 1 of 2 did not come within 2 s" in one.err


@pytest.mark.slow
def test_processes_end_well_though_they_tell_that_they_live_until_they_end(home):
    for _ in range(3):
        assert processes.ends(processes.start_script(home, 2, TELLING)) == [(0, "", "")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("limited", [0, 1])
def test_a_checkpoint_that_one_process_cannot_write_ends_all_in_its_line(home, limited):
    found = processes.ends(processes.start_script(home, 2, SAVING, home / f"saved{limited}", limited), 100)
    assert [each.status for each in found] == [2, 2], "\n".join(each.err for each in found)
    told = [line for each in found for line in each.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "the file is larger than" in told[0]


def test_a_checkpoint_that_one_process_cannot_read_is_passed_over_by_all(home):
    found = processes.ends(processes.start_script(home, 2, READING, home / "torn"), 100)
    assert [each.status for each in found] == [0, 0], "\n".join(each.err for each in found)
    assert [each.out for each in found] == ["1 ['1']\n"] * 2
    assert "2 is damaged (process 1 cannot read it): going on from step 1" in found[0].err


def test_two_processes_export_in_shards_what_one_does_to_the_bit(home):
    for count in (1, 2):
        found = processes.ends(processes.start_script(home, count, EXPORTING, count, home / f"exported{count}"), 60)
        assert [each.status for each in found] == [0] * count, "\n".join(each.err for each in found)
    one, two = ({each.name: each.read_bytes() for each in (home / f"exported{count}").iterdir()} for count in (1, 2))
    assert sum(name.startswith("model-") for name in one) > 3
    assert one == two


@pytest.mark.parametrize("refused", [pytest.param("open", marks=pytest.mark.slow), "write"])
def test_a_cache_that_refuses_the_first_process_keeps_none_from_what_all_have_made(home, refused):
    found = processes.ends(processes.start_script(home, 2, KEEPING, refused), 60)
    assert [each.status for each in found] == [0, 0], "\n".join(each.err for each in found)
    assert found[0].err.count("the cache keeps nothing new") == 1
    assert found[1].err == ""


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_a_process_that_is_gone_before_jax_has_started_ends_the_others_in_a_line(home, gone):
    found = processes.ends(processes.start_script(home, 2, GOING, gone), 60)
    assert found[1 - gone].status == 142, found[1 - gone].err
    assert "error: distributed: one of 2 processes came and was gone" in found[1 - gone].err.splitlines()[-1]

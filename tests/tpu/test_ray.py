"""Ray's part, on a cluster of this machine alone, where Ray is installed."""

import importlib.util
import os
import subprocess
import sys
import time

import pytest

from tpu.slices import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

JOB = """
import os, pathlib, signal, sys, time
name = sys.argv[1]
place = os.environ.get("TPU_NAME", "")
with open(f"{name}.starts", "a") as file:
    file.write(f"start {place} {time.time()}\\n")
starts = len(pathlib.Path(f"{name}.starts").read_text().splitlines())
if name == "mistake":
    sys.exit(2)
if name == "stopped" and starts < 3:
    sys.exit(143)
if name == "killed" and starts < 2:
    os.kill(os.getppid(), signal.SIGKILL)  # Ray's worker, as with its machine
    time.sleep(60)
if name == "uneven" and starts <= 2:
    sys.exit(142) if starts == 2 else time.sleep(60)
if name == "taken" and place == "one":
    signal.pause()
if name.startswith("slow"):
    time.sleep(0.5)
pathlib.Path(f"{name}.done").touch()
with open(f"{name}.ends", "a") as file:
    file.write(f"{time.time()}\\n")
"""
# Ray would start its workers by `uv run`, in a place of their own, where tests were started so.
ENVIRONMENT = {**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def started(folder, lines, *words, **environment):
    (folder / "job.py").write_text(JOB)
    (folder / "lines").write_text("".join(f"job {line}\n" for line in lines))
    argv = [sys.executable, str(ROOT / "tpu" / "ray_runs.py"), "lines", *words]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder), **environment}
    return subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(folder, lines, *words, **environment):
    process = started(folder, lines, *words, **environment)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def starts(folder, name):
    path = folder / f"{name}.starts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_what_is_stopped_or_killed_is_run_again_until_it_is_done_once_and_a_mistake_is_not(tmp_path):
    names = ["one", "stopped", "killed", "mistake", "two"]
    status, out, err = run(tmp_path, [f"{name} distributed.timeout=4" for name in names], "cpu")
    assert status == 1, err
    assert "failed (2): job mistake" in out
    assert "5 of 5" in out
    every = {name: starts(tmp_path, name) for name in names}
    assert {name: len(each) for name, each in every.items()} == {
        "one": 1, "stopped": 3, "killed": 2, "mistake": 1, "two": 1
    }  # fmt: skip
    assert {path.stem for path in tmp_path.glob("*.done")} == {"one", "stopped", "killed", "two"}
    # What was killed may have left processes at work elsewhere; what said that it stopped has not.
    assert float(every["killed"][1][-1]) - float(every["killed"][0][-1]) > 4 * 1.2
    assert "started again in 0 s (1): 143: job stopped" in out


def test_so_many_runs_go_on_side_by_side_as_are_asked_for(tmp_path):
    names = [f"slow{number}" for number in range(3)]
    status, _, err = run(tmp_path, names, "cpu", "1", "0", "1")
    assert status == 0, err
    begun = sorted(float(starts(tmp_path, name)[0][-1]) for name in names)
    over = sorted(float((tmp_path / f"{name}.ends").read_text()) for name in names)
    assert all(end <= begin for end, begin in zip(over[:-1], begun[1:], strict=True))


def test_a_process_that_waits_for_one_that_is_gone_is_ended_and_the_run_starts_again(tmp_path):
    status, out, err = run(tmp_path, ["uneven distributed.timeout=2"], "cpu", "2")
    assert status == 0, err
    assert out.count("started again in 2.4 s") == 1
    assert len(starts(tmp_path, "uneven")) == 4


def test_what_a_machine_cannot_start_fails_at_once(tmp_path):
    status, out, err = run(tmp_path, ["one"], "cpu", PATH=str(tmp_path))  # where there is no setpriv
    assert status == 1, err
    assert "1 of 1: failed (RayTaskError(FileNotFoundError)): job one" in out
    assert out.count(": job one\n") == 2  # started once, and told of


def test_a_run_whose_slice_has_lost_a_machine_goes_on_on_another_one(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quickly = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quickly}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": 80_000_000})

    def slice_of_two(name):
        nodes = []
        for first in (True, False):
            resources = {name: 1, "TPU": 4, **({"TPU-v5litepod-8-head": 1} if first else {})}
            place = {"env_vars": {"TPU_NAME": name}, "labels": {"ray.io/tpu-slice-name": name}}
            more = {"num_cpus": 1, "object_store_memory": 80_000_000}
            nodes.append(cluster.add_node(resources=resources, **place, **more))
        return nodes

    try:
        _, second = slice_of_two("one")
        line = ["taken distributed.timeout=2"]
        process = started(tmp_path, line, "v5litepod-8", "2", "4", RAY_ADDRESS=cluster.address)
        until = time.monotonic() + 120
        while len(starts(tmp_path, "taken")) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        slice_of_two("two")
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        cluster.shutdown()
    assert process.returncode == 0, err
    assert [place for _, place, _ in starts(tmp_path, "taken")] == ["one", "one", "two", "two"], out
    # Once on the whole slice, and not again on what is left of it.
    assert out.count("started again") == 1, out
    assert "1 of 1: done" in out

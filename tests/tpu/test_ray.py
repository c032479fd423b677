"""Ray's part, on a cluster of this machine alone, where Ray is installed."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tpu.slices import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

JOB = """
import os, pathlib, signal, sys, time
name = sys.argv[1]
with open(f"{name}.starts", "a") as file:
    file.write("start\\n")
starts = len(pathlib.Path(f"{name}.starts").read_text().splitlines())
if name == "mistake":
    sys.exit(2)
if name == "stopped" and starts < 3:
    sys.exit(143)
if name == "killed" and starts < 2:
    os.kill(os.getppid(), signal.SIGKILL)  # Ray's worker, as with its machine
    time.sleep(60)
pathlib.Path(f"{name}.done").touch()
"""


def run(folder, **environment):
    argv = [sys.executable, str(ROOT / "tpu" / "ray_runs.py"), "lines", "cpu"]
    # Ray would start its workers by `uv run`, in a place of their own, where tests were started so.
    environment = {**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "PYTHONPATH": str(folder), **environment}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def test_what_is_stopped_or_killed_is_run_again_until_it_is_done_once_and_a_mistake_is_not(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    names = ["one", "stopped", "killed", "mistake", "two"]
    (tmp_path / "lines").write_text("".join(f"job {name}\n" for name in names))
    done = run(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "failed (2): job mistake" in done.stdout
    starts = {name: len((tmp_path / f"{name}.starts").read_text().splitlines()) for name in names}
    assert starts == {"one": 1, "stopped": 3, "killed": 2, "mistake": 1, "two": 1}
    assert {path.stem for path in tmp_path.glob("*.done")} == {"one", "stopped", "killed", "two"}


def test_what_a_machine_cannot_start_fails_at_once(tmp_path):
    (tmp_path / "lines").write_text("job one\n")
    done = run(tmp_path, PATH=str(tmp_path))  # where there is no setpriv
    assert done.returncode == 1, done.stderr
    assert "1 of 1: failed (RayTaskError(FileNotFoundError)): job one" in done.stdout
    assert done.stdout.count(": job one\n") == 2  # started once, and told of

"""Each engine for real, on this machine, while its workers are killed: every run is done once, and all in one line."""

import os
import random
import signal
import time
from importlib.util import find_spec

import processes
import pytest
import sweeping

RAY = pytest.param("ray", 20, 6, marks=pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray"))


def check(home, engine, runs, kills, seconds, seed=0):
    said, starts, done, again, killed = sweeping.disturbed(home, engine, runs, kills, seconds, random.Random(seed))
    assert killed == kills
    assert done == {f"seed={number}" for number in range(runs)}
    assert not again
    assert runs < sum(map(len, starts.values())) <= runs + kills  # who is killed takes no other along
    overrides, variables = (
        sweeping.settings(home, engine) if engine != "submitit_slurm" else (("hydra/launcher=joblib",), {})
    )
    again = sweeping.start(home, f"seed=range({runs})", f"seconds={seconds}", *overrides, variables=variables)
    _, err = again.communicate(timeout=120)
    assert f"{runs} of {runs} runs have ended before" in err
    assert sweeping.pids(home, "starts") == starts
    return said


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_started_again_and_none_is_done_twice(tmp_path):
    assert "lost their worker" in check(tmp_path, "joblib", runs=3, kills=1, seconds=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "runs", "kills"), [("joblib", 8, 3), ("submitit_local", 20, 6), ("submitit_slurm", 8, 3), RAY]
)
def test_runs_are_each_done_once_while_workers_are_killed_at_random(tmp_path, engine, runs, kills):
    check(tmp_path, engine, runs=runs, kills=kills, seconds=2)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_takes_no_other_with_it(tmp_path):
    sweeping.write(tmp_path)
    process = sweeping.start(tmp_path, "seed=range(2)", "seconds=2", "hydra/launcher=joblib")
    while len(begun := sweeping.pids(tmp_path, "starts")) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(begun["seed=0"][0], signal.SIGTERM)
    assert process.communicate(timeout=60)[1].count("1 of the sweep's runs have lost their worker") == 1
    assert [len(found) for found in sweeping.pids(tmp_path, "starts").values()] == [2, 1]


def batch(home):
    return (home / "slurm" / "batch").read_text().splitlines()


def test_an_array_of_slurm_is_requeued_where_a_run_is_stopped_and_signalled_before_its_end(tmp_path):
    sweeping.write(tmp_path)
    overrides, variables = sweeping.settings(tmp_path, "submitit_slurm")
    more = ("hydra.sweeper.pack=2", "+hydra.launcher.parameters.slurm_partition=spot", "hydra.launcher.at_once=1")
    process = sweeping.start(tmp_path, "seed=range(4)", "seconds=1", *overrides, *more, variables=variables)
    while "seed=1" not in (begun := sweeping.pids(tmp_path, "starts")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(begun["seed=1"][0], signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = batch(tmp_path)
    for flag in ("array=0-1%1", "nodes=1", "ntasks-per-node=1", "signal=TERM@300", "time=1440", "partition=spot"):
        assert f"#SBATCH --{flag}" in lines
    assert "#SBATCH --requeue" in lines
    command = next(line for line in lines if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in command
    assert lines[-3:] == [
        "status=$?",
        "if [ $status = 142 ] || [ $status = 143 ]; then [ $((SLURM_RESTART_COUNT)) -lt 100 ] && "
        "scontrol requeue $SLURM_JOB_ID; fi",
        "exit $status",
    ]
    # By SLURM and in the same job: the sweep itself has lost nothing. The queue is told of the end behind it.
    while len((tmp_path / "slurm" / "ended").read_text().splitlines()) < 3:
        time.sleep(0.05)
    assert (tmp_path / "slurm" / "ended").read_text().splitlines() == ["0 143", "0 0", "1 0"]
    assert [len(found) for found in sweeping.pids(tmp_path, "starts").values()] == [1, 2, 1, 1]
    assert "lost" not in err


@pytest.mark.slow
def test_a_run_on_two_nodes_of_slurm_is_two_processes_that_find_each_other(tmp_path):
    sweeping.write(tmp_path)
    overrides, variables = sweeping.settings(tmp_path, "submitit_slurm")
    process = sweeping.start(
        tmp_path, "seed=range(2)", *overrides, "hydra.launcher.parameters.nodes=2", "hydra.launcher.at_once=1",
        variables=variables, python=processes.python(),
    )  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "#SBATCH --nodes=2" in batch(tmp_path)
    assert "#SBATCH --ntasks-per-node=1" in batch(tmp_path)
    for number in range(2):
        folder = tmp_path / "outputs" / "one" / f"seed={number}"
        assert '"processes": 2' in (folder / "manifest.json").read_text()
        assert len(sweeping.pids(tmp_path, "starts")[folder.name]) == 2
        assert len(sweeping.pids(tmp_path, "ends")[folder.name]) == 1


def test_what_submitit_refuses_is_one_line(tmp_path):
    sweeping.write(tmp_path)
    process = sweeping.start(tmp_path, "seed=1,2", "hydra/launcher=submitit_slurm")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == (
        'error: hydra/launcher: submitit on slurm: Could not detect "srun", are you indeed on a slurm cluster?\n'
    )

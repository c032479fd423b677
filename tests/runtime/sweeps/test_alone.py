"""Jobs of a sweep that are started one by one, as engines do: ``run=SWEEP/JOB`` without ``-m``."""

import json
import re
from pathlib import Path

import processes
import pytest
import sweeping

from immunax.runtime.sweeps import outcome


@pytest.fixture
def alone(command):
    """Runs a command that is no sweep: its exit status, and what it said."""
    return lambda *overrides: command("defense=tar", *overrides)


def starts(folder="outputs/one/x=0.5"):
    return len(Path(folder, "starts").read_text().split())


JOB = ('run="one/x=0.5"', "x=0.5")


def test_what_has_ended_says_so_and_does_nothing(alone):
    assert alone(*JOB) == (0, "")
    status, said = alone(*JOB, "objective=results.y", "+mesh.data=2")
    assert status == 0
    assert re.fullmatch(r"ended at 20\S+: the results are in \S+/x=0.5; to make them anew, delete it\n", said)
    assert starts() == 1


def test_within_a_sweep_it_is_the_same_run(alone, sweep):
    alone(*JOB)
    assert sweep("x=0.5,0.6")[1].startswith("1 of 2 runs have ended before")
    status, said = alone('run="one/x=0.6"', "x=0.6")
    assert (status, said[:9]) == (0, "ended at ")
    assert (starts(), starts("outputs/one/x=0.6")) == (1, 1)


def test_a_run_of_no_sweep_is_begun_by_each_start(alone):
    for _ in range(2):
        assert alone("run=mine") == (0, "")
    assert starts("outputs/mine") == 2
    assert not Path("outputs/mine", outcome.FILE).exists()


def test_another_configuration_and_other_inputs_are_begun(alone):
    Path("weights").write_text("1")
    alone(*JOB, "model.path=weights")
    Path("weights").write_text("12")
    assert alone(*JOB, "model.path=weights") == (0, "")
    assert alone(*JOB, "model.path=weights", "seconds=0.01") == (0, "")
    assert starts() == 3


@pytest.mark.parametrize("gone", ["left", "ends", "manifest.json"])
def test_one_that_lacks_what_it_left_is_begun(alone, gone):
    alone(*JOB)
    folder = Path("outputs/one/x=0.5")
    if gone == "left":  # as earlier versions noted it
        said = json.loads((folder / outcome.FILE).read_text())
        del said["left"]
        (folder / outcome.FILE).write_text(json.dumps(said))
    else:
        (folder / gone).unlink()
    assert alone(*JOB) == (0, "")
    assert starts() == 2


def test_one_whose_manifest_was_begun_anew_is_begun(alone):
    alone(*JOB)
    manifest = Path("outputs/one/x=0.5/manifest.json")
    said = json.loads(manifest.read_text())
    del said["ended"]
    manifest.write_text(json.dumps(said))
    assert alone(*JOB) == (0, "")
    assert starts() == 2


@pytest.mark.parametrize(("x", "line"), [("0.85", "failed"), ("0.95", "diverged")])
def test_what_failed_or_diverged_is_begun(alone, x, line):
    for _ in range(2):
        status, said = alone(f'run="one/x={x}"', f"x={x}")
        assert (status, said) == (2, f"error: {line} at {x}\n")
    assert starts(f"outputs/one/x={x}") == 2


def test_other_code_is_told_of(alone, monkeypatch):
    alone(*JOB)
    monkeypatch.setattr(outcome, "_code", lambda: "other")
    assert re.match(r"ended at 20\S+ with other code or libraries than now: ", alone(*JOB)[1])
    assert starts() == 1


def test_processes_that_are_one_job_leave_it_out_together(tmp_path):
    first, again = (sweeping.together(tmp_path, 2, "x=0.5", python=processes.python(), line=[JOB[0]]) for _ in range(2))
    assert [each.status for each in (*first, *again)] == [0, 0, 0, 0], (first, again)
    assert [each.err[:9] for each in again] == ["ended at ", ""]
    assert starts(tmp_path / "outputs" / "one" / "x=0.5") == 2  # once a process

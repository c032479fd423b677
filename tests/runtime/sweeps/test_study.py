"""Studies in this process, of runs whose number is ``(x − 0.3)²``, which diverge above 0.9 and fail above 0.8."""

import json
import signal
import time
from pathlib import Path

import pytest
import sweeping

STUDY = ("x=interval(0,1)", "hydra/sweeper=optuna", "objective=results.y")


def trials():
    return json.loads(Path("outputs/one/study.json").read_text())["trials"]


def test_a_study_goes_on_behind_trials_that_fail_or_diverge_and_a_longer_one_goes_on_from_it(sweep):
    status, said = sweep(*STUDY, "hydra.sweeper.trials=8")
    assert status == 2
    first = trials()
    assert [each["state"] for each in first] == [
        "diverged" if each["chosen"]["x"] > 0.9 else "failed" if each["chosen"]["x"] > 0.8 else "ended"
        for each in first
    ]
    assert {each["state"] for each in first} == {"ended", "diverged", "failed"}
    for each in first:
        assert each["line"] == ("" if each["state"] == "ended" else f"{each['state']} at {each['chosen']['x']}")
    ended = [each for each in first if each["state"] == "ended"]
    best = min(ended, key=lambda each: each["value"])
    assert best["value"] == pytest.approx((best["chosen"]["x"] - 0.3) ** 2)
    assert f"the least results.y is {best['value']:.4g}, of {best['folder']} (" in said
    sweep(*STUDY, "hydra.sweeper.trials=9", "hydra.sweeper.at_once=4")
    assert trials()[:8] == first
    assert len(trials()) == 9
    assert {len(found) for found in sweeping.pids(Path(), "starts").values()} == {1}


def test_a_study_that_is_stopped_goes_on_with_the_trials_that_an_undisturbed_one_has(sweep, monkeypatch):
    small = (*STUDY, "x=interval(0,0.7)", "hydra.sweeper.trials=4", "hydra.sweeper.at_once=2", "seconds=0.0017")
    assert sweep(*small)[0] == 0
    undisturbed = trials()
    Path("outputs").rename("before")
    real, runs = time.sleep, []

    def stopping(seconds):
        runs.extend([seconds] if seconds == 0.0017 else [])
        if len(runs) == 4 and seconds == 0.0017:
            signal.raise_signal(signal.SIGTERM)
        real(seconds)

    monkeypatch.setattr(time, "sleep", stopping)
    assert sweep(*small)[0] == 143
    assert sweep(*small)[0] == 0
    assert trials() == undisturbed
    assert len(runs) == 4 + 1


def test_whole_numbers_and_choices_are_chosen_from_what_is_given(sweep):
    status, _ = sweep(
        "hydra/sweeper=optuna", "objective=-results.y", "seed=range(2,9,3)", "x=0.1,0.25", "hydra.sweeper.trials=6"
    )
    assert status == 0
    assert {each["chosen"]["seed"] for each in trials()} <= {2, 5, 8}
    assert {each["chosen"]["x"] for each in trials()} == {"0.1", "0.25"}
    assert min(each["value"] for each in trials()) == pytest.approx(-0.04)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("objective=results.z",), "objective=results.z: results has no 'z'. There is: y, processes."),
        (("hydra.sweeper.trials=0",), "hydra.sweeper.trials=0: expected a whole number, at least 1."),
        (("x=0.5",), "hydra/sweeper=optuna: no value varies; give one a range, such as seed=1,2 or 'x=interval(0,1)'."),
        (("hydra.sweeper.sampler._target_=optuna.samplers.PartialFixedSampler",), "hydra/sweeper=optuna: "),
    ],
)
def test_a_study_that_cannot_be_is_one_line(sweep, overrides, line):
    status, said = sweep(*STUDY, "hydra.sweeper.trials=1", *overrides)
    assert status == 2
    assert said.splitlines()[-1].startswith(f"error: {line}")
    assert "Traceback" not in said


def test_a_folder_has_one_study(sweep):
    assert sweep(*STUDY, "x=interval(0,0.7)", "hydra.sweeper.trials=1")[0] == 0
    for other in (("objective=-results.y",), ("seconds=0.01",)):
        status, said = sweep(*STUDY, "x=interval(0,0.7)", "hydra.sweeper.trials=2", *other)
        assert (status, said.count("\n")) == (2, 1)
        assert said.startswith(f"error: outputs/one holds a study that differs in {other[0]}")
    assert sweep(*STUDY, "x=interval(0,0.7)", "hydra.sweeper.trials=1", "distributed.timeout=5", "+mesh.data=2")[0] == 0
    status, said = sweep("seed=1,2", *STUDY[1:], "hydra.sweeper.trials=2")
    assert (status, said.count("\n")) == (2, 1)

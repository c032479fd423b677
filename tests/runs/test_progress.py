import json
from datetime import datetime, timedelta

import pytest
from run_folders import leave, manifest, sweep

from immunax.runs.find import runs_below
from immunax.runs.progress import Step, progress
from immunax.runs.read import Reader
from immunax.runs.watch import summary
from immunax.runtime import lock
from immunax.runtime.accounts import Start, as_json

NOW = datetime(2026, 1, 1, 10, 0, 30)


def look(folder, waiting=0, now=NOW, clock=100.0, first=None):
    reader = Reader()
    return progress(map(reader.read, runs_below([folder]).places), waiting, now, clock, {} if first is None else first)


def test_the_rest_takes_as_long_as_the_runs_that_are_done(tmp_path):
    sweep(tmp_path)
    folder = tmp_path / "defense=tar+seed=2"
    with lock.held(folder / lock.FILE):
        found = look(tmp_path, waiting=2)
    assert found.counts == {"done": 4, "running": 1, "diverged": 1}
    assert (found.total, found.typical) == (8, 90.0)
    assert found.an_hour == pytest.approx(40.0)
    assert found.left == pytest.approx(60.0 + 2 * 90.0)
    (going,) = found.going
    assert (going.phase, going.step, going.steps, going.seconds) == ("train", 3, 4, 30.0)
    assert going.loss == pytest.approx(0.6 + 1 / 3)
    assert found.failures == [("defense=tar+seed=1", "the loss is nan at step 3")]
    assert summary(found) == "4 of 8 runs done, 2 waiting, 1 running, 1 diverged, 40 runs an hour, 0:04:00 left"


def test_where_none_is_done_the_rest_is_told_by_the_share_of_the_training(tmp_path):
    leave(tmp_path / "a", manifest(ended=None), metrics=[("train", 1, {"loss": 1})])
    with lock.held(tmp_path / "a" / lock.FILE):
        found = look(tmp_path, waiting=1)
    assert found.typical == pytest.approx(120.0)
    assert found.left == pytest.approx(90.0 + 120.0)


def test_a_run_that_was_interrupted_has_taken_the_time_of_all_its_starts(tmp_path):
    # The manifest's own times are of the last start alone.
    leave(tmp_path / "a", manifest(goodput={"wall": 5 * 3600.0, "seconds": {"redone": 600.0}}))
    leave(tmp_path / "b", manifest(ended=None), metrics=[("train", 2, {"loss": 1})])
    accounts = [Start(0.0), Start(20_000.0)]
    accounts[0].spent |= {"step": 3 * 3600.0, "redone": 3600.0}
    accounts[1].spent |= {"step": 1800.0}
    (tmp_path / "b" / "goodput.json").write_text(json.dumps({"starts": [*map(as_json, accounts)]}))
    with lock.held(tmp_path / "b" / lock.FILE):
        found = look(tmp_path, waiting=2)
    assert found.typical == 5 * 3600.0
    assert found.going[0].seconds == 3.5 * 3600.0  # what was computed in vain is to come once more
    assert found.left == (1.5 + 2 * 5) * 3600.0


def test_where_none_is_done_a_resumed_run_is_no_faster_for_the_steps_of_its_earlier_starts(tmp_path):
    leave(tmp_path / "a", manifest(ended=None), metrics=[("train", 3, {"loss": 1})])
    first, second = Start(0.0), Start(20_000.0)
    first.spent["step"], second.spent["load"] = 3000.0, 60.0
    (tmp_path / "a" / "goodput.json").write_text(json.dumps({"starts": [as_json(first), as_json(second)]}))
    with lock.held(tmp_path / "a" / lock.FILE):
        assert look(tmp_path).typical == pytest.approx(3060.0 / 0.75)


def test_what_was_stopped_is_to_come_like_what_has_not_begun(tmp_path):
    leave(tmp_path / "a", manifest())
    leave(tmp_path / "b", manifest(ended=None))
    leave(tmp_path / "c", manifest(ended=None))
    with lock.held(tmp_path / "c" / lock.FILE):
        found = look(tmp_path, waiting=1)
    assert found.counts == {"done": 1, "stopped": 1, "running": 1}
    assert found.left == pytest.approx(60.0 + 2 * 90.0)


def test_nothing_is_told_of_the_rest_before_anything_is_known(tmp_path):
    leave(tmp_path / "a")
    with lock.held(tmp_path / "a" / lock.FILE):
        found = look(tmp_path)
    assert (found.typical, found.left, found.an_hour) == (None, None, None)
    assert summary(found) == "0 of 1 runs done, 1 running"


def test_the_rate_is_of_the_steps_since_a_run_was_first_seen_in_its_phase(tmp_path):
    folder = leave(tmp_path / "a", manifest(ended=None), metrics=[("train", 10, {"loss": 1})])
    first: dict = {}
    with lock.held(folder / lock.FILE):
        assert look(tmp_path, clock=100.0, first=first).going[0].rate is None
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"phase": "train", "step": 30, "values": {}}\n')
        assert look(tmp_path, clock=110.0, first=first).going[0].rate == pytest.approx(2.0)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"phase": "attack/immunized", "step": 1, "values": {}}\n')
        assert look(tmp_path, clock=120.0, first=first).going[0].rate is None
    assert first[folder] == Step("attack/immunized", 1, 120.0)


def test_it_is_over_when_nothing_is_left_to_come(tmp_path):
    assert not look(tmp_path).is_over
    leave(tmp_path / "a", manifest())
    leave(tmp_path / "b", failure={"line": "x"})
    assert look(tmp_path).is_over
    assert not look(tmp_path, waiting=1).is_over
    leave(tmp_path / "c", manifest(ended=None))
    assert not look(tmp_path).is_over  # what was stopped may be started again


def test_a_clock_that_is_behind_makes_no_negative_times(tmp_path):
    leave(tmp_path / "a", manifest(ended=None))
    with lock.held(tmp_path / "a" / lock.FILE):
        assert look(tmp_path, now=NOW - timedelta(days=1)).going[0].seconds == 0.0

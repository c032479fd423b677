import pytest

from immunax.runtime import failure
from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.outcome import FILE, Asked, Outcome, ended, known

CONFIG = {"seed": 1, "outputs": "outputs", "run": "one", "model": {"path": None}}


def test_only_what_a_run_is_called_and_where_it_lies_is_free():
    asked = Asked.of(CONFIG)
    assert Asked.of({**CONFIG, "outputs": "elsewhere", "run": "two", "objective": "x", "mesh": {"data": 2}}) == asked
    assert Asked.of({**CONFIG, "seed": 2}).config != asked.config
    computed = Asked.of({**CONFIG, "compute": {"dtype": "auto"}})
    assert Asked.of({**CONFIG, "compute": {"dtype": "auto", "peak": 1e12}, "trace": 3}) == computed != asked


def test_files_count_by_name_size_and_time_and_the_folder_of_runs_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("1")
    before = Asked.of({**CONFIG, "data": {"root": "data"}, "about": ["."]})
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "new").write_text("1")
    assert Asked.of({**CONFIG, "data": {"root": "data"}, "about": ["."]}) == before
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "data" / "deep" / "b.jsonl").write_text("1")
    outcome._files.cache_clear()
    after = Asked.of({**CONFIG, "data": {"root": "data"}, "about": ["."]})
    assert (after.config, after.code) == (before.config, before.code)
    assert after.inputs != before.inputs


def test_a_run_is_known_that_has_ended_with_the_same(tmp_path):
    asked = Asked.of(CONFIG)
    assert known(tmp_path, asked) is None
    ended(tmp_path, asked)
    assert known(tmp_path, asked) == Outcome(False, "", True)
    assert known(tmp_path, asked._replace(code="other")) == Outcome(False, "", False)
    assert known(tmp_path, asked._replace(config="other")) is None
    assert known(tmp_path, asked._replace(inputs="other")) is None
    (tmp_path / FILE).write_text("{")
    assert known(tmp_path, asked) is None


@pytest.mark.parametrize(
    ("error", "found"),
    [(DivergedError("at step 3"), Outcome(True, "at step 3", True)), (UserError("no room"), None), (KeyError(), None)],
)
def test_of_those_that_failed_the_diverged_ones_are_known(tmp_path, error, found):
    asked = Asked.of(CONFIG)
    with pytest.raises(type(error)), failure.recorded(tmp_path, asked._asdict()):
        raise error
    assert known(tmp_path, asked) == found
    assert known(tmp_path, asked._replace(config="other")) is None

import json

import pytest
from certified import leave_tables
from run_folders import leave, manifest, sweep

from immunax.runs.answer import answer
from immunax.runs.find import runs_below
from immunax.runs.options import parse
from immunax.runs.read import read_runs
from immunax.runs.record import FILE, keep, kept
from immunax.runs.source import of_folders
from immunax.runtime.errors import UserError

QUESTIONS = (
    ("by=defense", "metric=after.refusal", "about=both"),
    ("by=seed", "metric=trainer.steps"),
    ("plot=lines", "x=step", "y=loss", "hue=defense", "where=phase = 'train'"),
)


def test_a_record_answers_as_the_runs_do(tmp_path):
    source = of_folders(read_runs(runs_below([sweep(tmp_path / "sweep")]).places))
    keep(tmp_path / "out", source, ["curves"])
    again = kept(tmp_path / "out")
    for words in QUESTIONS:
        (before, after) = (answer(parse(words), each) for each in (source, again))
        assert (after.table, after.figure) == (before.table, before.figure)


def test_the_states_of_certificates_are_kept_with_what_was_measured_there(tmp_path):
    leave_tables(leave(tmp_path / "runs" / "a", manifest(seed=1)))
    source = of_folders(read_runs(runs_below([tmp_path / "runs"]).places))
    keep(tmp_path / "out", source, ["cells"])
    words = ("table=cells", "by=step", "metric=test.judge.refusal", "about=both")
    assert answer(parse(words), kept(tmp_path / "out")).table == answer(parse(words), source).table


def test_a_record_has_no_path_of_the_machine_and_says_once_what_all_runs_share(tmp_path):
    for seed in (0, 1):
        record = manifest(seed=seed)
        record["config"]["model"] = {"path": "/home/somebody/models/llama"}
        leave(tmp_path / "runs" / f"seed={seed}", record)
    keep(tmp_path / "out", of_folders(read_runs(runs_below([tmp_path / "runs"]).places)), [])
    text = (tmp_path / "out" / FILE).read_text()
    assert "/home" not in text
    said = json.loads(text)
    assert said["all"]["config.model.path"] == "llama"
    assert [run["seed"] for run in said["runs"]] == [0, 1]
    assert "config.model.path" not in said["runs"][0]


@pytest.mark.parametrize("text", ["", "3", "{}", '{"all": {}, "runs": [{}]}'])
def test_what_is_no_record_is_one_line(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"is no record of runs; give a folder that immunax\.figure has written to"):
        kept(tmp_path)

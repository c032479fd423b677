from certified import leave_tables
from run_folders import leave, manifest

from immunax.conditions.records import RECORDS_FILE
from immunax.runs.cells import cells
from immunax.runs.find import runs_below
from immunax.runs.read import read_runs


def test_a_cell_is_a_row_with_the_mean_of_what_was_measured_there(tmp_path):
    leave_tables(leave(tmp_path / "a", manifest(seed=1)))
    leave(tmp_path / "b", manifest())
    found, faults = cells(read_runs(runs_below([tmp_path]).places))
    assert faults == []
    names = ("run", "family", "step", "test.judge.refusal", "transfer.judge.refusal", "test.retain_nll")
    assert [tuple(row.get(name) for name in names) for row in found.rows] == [
        ("a", "sft", 0, 0.5, 1.0, 1.0),
        ("a", "sft", 5, 0.0, None, None),
    ]
    # The seed is the cell's, and the run's stays where it was.
    assert (found.rows[0].get("seed"), found.rows[0].get("config.seed")) == (7, 1)


def test_tables_that_cannot_be_read_are_one_line(tmp_path):
    leave_tables(leave(tmp_path / "a", manifest()))
    leave_tables(leave(tmp_path / "b", manifest()))
    (tmp_path / "b" / RECORDS_FILE).write_bytes(b"PAR1 and nothing more")
    found, faults = cells(read_runs(runs_below([tmp_path]).places))
    assert {row.get("run") for row in found.rows} == {"a"}
    assert len(faults) == 1
    assert str(tmp_path / "b" / RECORDS_FILE) in faults[0]

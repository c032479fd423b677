import certified
from run_folders import leave, manifest

from immunax.conditions.records import CELLS, CELLS_FILE, RECORDS, RECORDS_FILE, frame, write
from immunax.runs.cells import cells
from immunax.runs.find import runs_below
from immunax.runs.read import read_runs


def tables(folder):
    write(
        folder / CELLS_FILE,
        frame([certified.state("c1", "subject", "sft", seed=7), certified.state("c2", "subject", "sft", 5)], CELLS),
    )
    rows = [
        *certified.judged("c1", 0, "refusal", [1, 0, 0, 1]),
        *certified.judged("c1", 0, "refusal", [1], split="transfer"),
        *certified.measured("c1", 0, "retain_nll", [2.0, 4.0], weight=3.0),
        *certified.judged("c2", 5, "refusal", [0]),
    ]
    write(folder / RECORDS_FILE, frame(rows, RECORDS))


def test_a_cell_is_a_row_with_the_mean_of_what_was_measured_there(tmp_path):
    tables(leave(tmp_path / "a", manifest(seed=1)))
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
    tables(leave(tmp_path / "a", manifest()))
    tables(leave(tmp_path / "b", manifest()))
    (tmp_path / "b" / RECORDS_FILE).write_bytes(b"PAR1 and nothing more")
    found, faults = cells(read_runs(runs_below([tmp_path]).places))
    assert {row.get("run") for row in found.rows} == {"a"}
    assert len(faults) == 1
    assert str(tmp_path / "b" / RECORDS_FILE) in faults[0]

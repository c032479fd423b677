import math
import os

from run_folders import leave, manifest

from immunax.runs.curves import curves, newest, with_last
from immunax.runs.find import runs_below
from immunax.runs.read import read_runs


def runs(folder):
    return read_runs(runs_below([folder]).places)


def test_a_line_is_a_row_with_its_values_and_its_runs_columns(tmp_path):
    leave(
        tmp_path / "a",
        manifest("tar", 3),
        metrics=[("train", 1, {"loss": 2.0, "seed": 9}), ("attack/m", 1, {"loss": 1})],
    )
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "train", "st')
    frame, faults = curves(runs(tmp_path))
    assert faults == []
    names = ("phase", "step", "loss", "values.seed", "seed", "choices.defense")
    assert [tuple(row.get(name) for name in names) for row in frame.rows] == [
        ("train", 1, 2.0, 9, 3, "tar"),
        ("attack/m", 1, 1, None, 3, "tar"),
    ]


def test_the_last_line_of_each_phase_is_columns_of_the_run(tmp_path):
    lines = [("train", 1, {"loss": 2.0}), ("train", 2, {"loss": math.nan}), ("attack/m", 1, {"loss": 1})]
    leave(tmp_path / "a", manifest(), metrics=[*lines, ("train", 3, {"loss": 0.5, "norm": 1})])
    leave(tmp_path / "b", manifest())
    (one, other), faults = with_last(runs(tmp_path))
    assert faults == []
    found = {name: value for name, value in one.values.items() if name.startswith("metrics.")}
    assert found == {"metrics.attack/m.loss": 1, "metrics.train.loss": 0.5, "metrics.train.norm": 1}
    assert not any(name.startswith("metrics.") for name in other.values)


def test_what_is_no_file_of_metrics_is_one_line(tmp_path):
    good = [("train", 1, {"loss": 1})]
    leave(tmp_path / "a", manifest(), metrics=good)
    (leave(tmp_path / "b", manifest()) / "metrics.jsonl").write_text(
        'garbage\n{"phase": "train", "step": 1, "values": {}}\n'
    )
    os.mkfifo(leave(tmp_path / "c", manifest()) / "metrics.jsonl")
    (leave(tmp_path / "d", manifest()) / "metrics.jsonl").mkdir()
    odd = '{"phase": ["x"], "step": 1, "values": [1]}\n{"phase": "train", "step": 2, "values": {"loss": {"a": 1}}}\n'
    (leave(tmp_path / "e", manifest()) / "metrics.jsonl").write_text(odd)
    frame, faults = curves(runs(tmp_path))
    assert [str(tmp_path / name) in line for name, line in zip("bcd", faults, strict=True)] == [True] * 3
    assert [row.get("run") for row in frame.rows] == ["a", "e", "e"]
    assert len(with_last(runs(tmp_path))[1]) == 2  # a line of garbage is before the last


def test_the_newest_line_is_read_from_the_end(tmp_path):
    folder = leave(tmp_path / "a", metrics=[("train", step, {"loss": step, "pad": "x" * 200}) for step in range(1000)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "tr')
    phase, step, values = newest(folder)
    assert (phase, step, values["loss"]) == ("train", 999, 999)
    assert newest(leave(tmp_path / "b")) is None
    os.mkfifo(leave(tmp_path / "c") / "metrics.jsonl")
    assert newest(tmp_path / "c") is None

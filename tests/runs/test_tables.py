import csv
from datetime import datetime

import pytest
from pyarrow import parquet

from immunax.conditions.statistics import Estimate
from immunax.runs.tables import Mean, Table, as_markdown, show, text, write

NAN = float("nan")
TABLE = Table(
    ["name|x", "n", "value", "mean", "when", "yes"],
    [
        [
            "a\x1b[31m|`b` <b>",
            1,
            Estimate(0.5, 0.25, 0.75),
            Mean(Estimate(0.5, NAN, NAN), 1, 2),
            datetime(2026, 1, 1),
            True,
        ],
        ["=1+1", None, None, Mean(Estimate(NAN, NAN, NAN), 0, 3), None, False],
    ],
)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (Estimate(0.5, 0.25, 0.75), "0.5 [0.25, 0.75]"),
        (Estimate(0.5, 0.25, NAN), "0.5 [0.25, –]"),
        (Estimate(0.5, NAN, NAN), "0.5"),
        (Mean(Estimate(0.5, 0.25, 0.75), 3, 3), "0.5 [0.25, 0.75]"),
        (Mean(Estimate(NAN, NAN, NAN), 0, 3), "– (0 of 3)"),
        (datetime(2026, 1, 1, 9), "2026-01-01 09:00:00"),
        (True, "true"),
        (None, "–"),
        (0.123456, "0.1235"),
    ],
)
def test_a_cell_is_a_number_with_its_interval(cell, told):
    assert text(cell) == told


def test_markdown_shows_text_of_strangers_as_it_is():
    lines = as_markdown(TABLE).splitlines()
    assert lines[0] == "| name\\|x | n | value | mean | when | yes |"
    assert lines[1] == "| --- | ---: | --- | --- | --- | ---: |"
    assert lines[2] == (
        "| a\\\\x1b\\[31m\\|\\`b\\` \\<b\\> | 1 | 0.5 [0.25, 0.75] | 0.5 (1 of 2) | 2026-01-01 00:00:00 | true |"
    )
    assert lines[3] == "| \\=1\\+1 | – | – | – (0 of 3) | – | false |"


def test_the_screen_shows_no_character_of_a_stranger_that_moves_it(capsys):
    show(TABLE, "t\x1b[2J")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b[31m|`b` <b>" in out


def test_csv_and_parquet_have_a_column_for_each_end_and_text_as_it_is(tmp_path):
    write(TABLE, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        headings, first, second = csv.reader(file)
    assert headings == [
        "name|x", "n", "value", "value.low", "value.high", "mean", "mean.low", "mean.high", "mean.n", "when", "yes",
    ]  # fmt: skip
    assert first == ["a\x1b[31m|`b` <b>", "1", "0.5", "0.25", "0.75", "0.5", "", "", "1", "2026-01-01 00:00:00", "True"]
    assert second[:3] == ["=1+1", "", ""]
    write(TABLE, tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column_names == headings
    assert table.column("value").to_pylist() == [0.5, None]
    assert table.column("when").to_pylist() == [datetime(2026, 1, 1), None]


@pytest.mark.parametrize("name", ["t.md", "t.csv", "t.parquet"])
def test_a_table_without_rows_has_its_headings(tmp_path, name):
    write(Table(["a", "b"], []), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 0

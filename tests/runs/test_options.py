from pathlib import Path

import pytest

from immunax.runs.options import Options, parse
from immunax.runtime.errors import UserError


def test_words_are_paths_and_options():
    words = ["outputs/a", "where=seed < 3 and x = 'y=z'", 'by=defense,"a, b"', "metric=x", "limit=5", "out=t.md"]
    assert parse(words) == Options(
        (Path("outputs/a"),),
        where="seed < 3 and x = 'y=z'",
        by=("defense", "a, b"),
        metric=("x",),
        limit=5,
        out=Path("t.md"),
    )
    assert parse([]).paths == (Path("outputs"),)
    assert parse(["--watch", "every=0.5"]) == Options(watch=True, every=0.5)


def test_the_folder_of_a_job_is_a_path_though_it_has_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").mkdir()
    assert parse(["outputs/defense=tar+seed=1", "seed=1"]).paths == (Path("outputs/defense=tar+seed=1"), Path("seed=1"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("metrics=x", "metrics: no such option. Did you mean 'metric'?"),
        ("--wach", "--wach: no such option. Did you mean '--watch'?"),
        (
            "table=run",
            "table='run': expected one of runs, curves, cells, families, budgets, columns. Did you mean 'runs'?",
        ),
        ("plot=pie x=a y=b", "plot='pie': expected one of lines, points, bars, matrix."),
        ("limit=0", "limit=0: expected a number, 1 or more"),
        ("limit=x", "limit=x: expected a number, 1 or more"),
        ("every=0 --watch", "every=0: expected a number of seconds"),
        ("every=nan --watch", "every=nan: expected a number of seconds"),
        ("by=a,,b", "by=a,,b: expected names of columns"),
        ("where=", "where=: expected a value"),
        ("by=a by=b", "by= is given twice"),
        ("out=x.txt", "out=x.txt: expected a name that ends in .md, .csv, .parquet."),
        ("plot=lines x=a y=b out=x.csv", "out=x.csv: expected a name that ends in .svg, .png, .pdf."),
        ("plot=lines x=a", "plot=lines: give x=COLUMN and y=COLUMN too"),
        ("plot=lines x=a y=b by=c", "by= means nothing with plot="),
        ("hue=a", "hue= means nothing without plot="),
        ("every=3", "every= means nothing without --watch"),
        ("runs=3", "runs= means nothing without --watch"),
        ("runs=0 --watch", "runs=0: expected a number, 1 or more"),
        ("--watch where=x", "where= means nothing with --watch"),
        ("select=a by=b", "select= means nothing with by= or columns="),
        ("select=all metric=b", "metric= means nothing with select=all"),
        ("columns=a", "columns=: a pivot shows one number"),
        ("columns=a metric=b,c", "columns=: a pivot shows one number"),
        ("table=columns by=type", "by= means nothing with table=columns"),
    ],
)
def test_a_word_that_means_nothing_is_one_line_with_the_fix(words, told):
    with pytest.raises(UserError) as error:
        parse(words.split())
    assert str(error.value).startswith(told)


def test_a_folder_is_no_file_to_write(tmp_path):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        parse([f"out={tmp_path / 'x.csv'}"])

import os

import pytest
from run_folders import leave, manifest, sweep

from immunax.runs.answer import answer
from immunax.runs.find import runs_below
from immunax.runs.options import parse
from immunax.runs.read import read_runs
from immunax.runs.source import of_folders
from immunax.runs.tables import text
from immunax.runtime.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return read_runs(runs_below([sweep(tmp_path_factory.mktemp("sweep"))]).places)


def ask(runs, *words):
    return answer(parse([*words]), of_folders(runs))


def rows(found):
    return [[text(cell) for cell in row] for row in found.table.rows]


def test_asked_for_nothing_a_table_tells_the_runs_apart_and_has_their_results(runs):
    found = ask(runs)
    assert found.title == "6 runs: 4 done, 1 diverged, 1 stopped"
    assert found.table.headings == ["defense", "seed", "status", "after.refusal"]
    assert rows(found)[0] == ["rep_noise", "0", "done", "0.2 [0.1, 0.3]"]
    assert rows(found)[4] == ["tar", "1", "diverged", "–"]
    assert found.notes == ["defense=tar+seed=1 diverged: the loss is nan at step 3"]


def test_runs_that_the_configuration_does_not_tell_apart_have_their_names(tmp_path):
    for name in ("a", "b"):
        leave(tmp_path / name, manifest())
    found = ask(read_runs(runs_below([tmp_path]).places))
    assert rows(found) == [["a", "0.5 [0.4, 0.6]"], ["b", "0.5 [0.4, 0.6]"]]


def test_a_condition_chooses_rows_and_the_title_says_of_how_many(runs):
    found = ask(runs, "where=seed > 0 and defense = 'tar'", "select=run,trainer.steps", "sort=-seed")
    assert found.title == "2 of 6 runs: 1 diverged, 1 stopped"
    assert found.table.headings == ["run", "trainer.steps"]
    assert [row[0] for row in rows(found)] == ["defense=tar+seed=2", "defense=tar+seed=1"]
    found = ask(runs, "where=false")
    assert (found.title, rows(found)) == ("0 of 6 runs", [])


def test_means_say_what_they_are_over_and_what_is_missing(runs):
    found = ask(runs, "by=defense", "metric=after.refusal")
    assert found.table.headings == ["defense", "runs", "after.refusal"]
    assert rows(found) == [["rep_noise", "3", "0.3 [0.0516, 0.548]"], ["tar", "3", "0.6 [0.5, 0.7] (1 of 3)"]]
    assert found.notes[0] == "2 of 6 runs have no after.refusal: 1 diverged, 1 stopped"
    assert found.notes[1].startswith("means are over seed, with 95% intervals of Student's t")


def test_groups_may_be_few_and_sorted(runs):
    found = ask(runs, "by=defense,seed", "metric=after.refusal", "sort=-after.refusal", "limit=2")
    assert [row[:2] for row in rows(found)] == [["tar", "0"], ["rep_noise", "2"]]


def test_a_pivot_is_of_one_number(runs):
    found = ask(runs, "by=defense", "columns=seed", "metric=after.refusal")
    assert found.table.headings == ["defense", "seed=0", "seed=1", "seed=2"]
    assert rows(found)[1] == ["tar", "0.6 [0.5, 0.7]", "– (0 of 1)", "– (0 of 1)"]


def test_what_was_logged_last_is_read_where_it_is_asked_for(runs):
    found = ask(runs, "metric=train.loss", "select=run")
    assert rows(found)[0] == ["defense=rep_noise+seed=0", "0.45"]
    found = ask(runs, "by=defense", "metric=metrics.train.loss", "where=train.loss < 1")
    assert found.title.endswith("of 5 of 6 runs: 4 done, 1 stopped")
    with pytest.raises(UserError, match=r"no column 'train\.los'\. Did you mean 'train\.loss'"):
        ask(runs, "metric=train.los")


def test_curves_are_drawn_by_phase_and_means_of_several_phases_are_refused(runs):
    series, labels = ask(runs, "plot=lines", "x=step", "y=loss").figure
    assert [each.name for each in series] == ["attack/immunized", "train"]
    assert labels.hue == "phase"
    found = ask(runs, "plot=lines", "x=step", "y=loss", "hue=defense", "where=phase = 'train'")
    (one, other), _ = found.figure
    assert {x: mean.count for x, mean in one.points.items()} == {1: 3, 2: 3, 3: 3, 4: 3}
    assert {x: mean.count for x, mean in other.points.items()} == {1: 3, 2: 3, 3: 2, 4: 1}
    assert found.notes[-1] == "there are means of 1 runs, and of 3"
    for words in (("plot=lines", "x=step", "y=loss", "hue=defense"), ("table=curves", "by=defense", "metric=loss")):
        with pytest.raises(UserError, match=r"loss is logged in 2 phases \(attack/immunized, train\): choose one"):
            ask(runs, *words)


def test_a_figure_is_of_means_by_x_and_hue(runs):
    series, labels = ask(runs, "plot=bars", "x=seed", "y=after.refusal", "hue=defense").figure
    assert [(each.name, list(each.points)) for each in series] == [("rep_noise", [0, 1, 2]), ("tar", [0])]
    assert (labels.x, labels.y, labels.hue) == ("seed", "after.refusal", "defense")
    with pytest.raises(
        UserError, match=r"nothing to draw: 1 of 6 runs: 1 diverged, and none with both seed and after\.refusal"
    ):
        ask(runs, "plot=bars", "x=seed", "y=after.refusal", "where=status = 'diverged'")


def test_an_infinite_mean_is_not_drawn_and_told(tmp_path):
    leave(tmp_path / "a", manifest(refusal=float("inf"), seed=1))
    leave(tmp_path / "b", manifest(seed=2))
    found = ask(read_runs(runs_below([tmp_path]).places), "plot=points", "x=seed", "y=after.refusal")
    assert [list(each.points) for each in found.figure[0]] == [[2]]
    assert "at seed=1 the mean is not finite, and is not drawn" in found.notes


def test_everything_is_every_column(runs):
    found = ask(runs, "select=all", "limit=1")
    assert {"run", "config.trainer.steps", "after.refusal", "after.refusal.low"} <= set(found.table.headings)
    assert found.table.headings == ask(runs, "out=x.csv").table.headings


def test_names_of_columns_are_a_table_with_what_was_logged(runs):
    found = ask(runs, "table=columns", "where=name like '%loss%'")
    assert [row[:3] for row in rows(found)] == [
        ["metrics.train.loss", "double", "6"],
        ["metrics.attack/immunized.loss", "double", "4"],
    ]


@pytest.mark.parametrize("table", ["curves", "cells"])
def test_where_no_run_has_such_rows_a_line_says_so(tmp_path, table):
    leave(tmp_path / "a", manifest())
    with pytest.raises(UserError, match=f"table={table}: none of 1 run has"):
        ask(read_runs(runs_below([tmp_path]).places), f"table={table}")


def test_names_that_are_no_text_are_shown_as_escapes(tmp_path):
    leave(tmp_path / os.fsdecode(b"run-\xff"), manifest(argv=["\ud800/a\ud800.py"]))
    leave(tmp_path / "b", manifest())
    found = ask(read_runs(runs_below([tmp_path]).places), "select=run,command", "sort=-run")
    assert rows(found) == [["run-\\udcff", "a\\ud800"], ["b", "train"]]

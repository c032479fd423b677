import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from immunax.conditions.statistics import Estimate
from immunax.runs.plot import draw, draw_on
from immunax.runs.series import Labels, Series
from immunax.runs.tables import Mean
from immunax.runtime.errors import UserError

LABELS = Labels("attack", "harm", "defense")


def row(name, **means):
    return Series(name, {x: Mean(Estimate(value, value, value), 3, 3) for x, value in means.items()})


ROWS = [row("none", sft=0.9, prune=0.2, merge=1.0), row("tar", sft=0.4, prune=0.0), row("lat", sft=0.6, prune=0.1)]


def drawn(series, limits=None):
    axes = Figure(figsize=(6.4, 4.0)).subplots()
    draw_on(axes, "matrix", series, LABELS, "", 6.4, limits)
    return axes


def test_rows_stand_in_the_order_of_their_means_and_columns_in_the_reverse_order():
    axes = drawn(ROWS)
    assert [each.get_text() for each in axes.get_yticklabels()] == ["tar", "lat", "none"]
    assert [each.get_text() for each in axes.get_xticklabels()] == ["merge", "sft", "prune"]
    told = {each.get_position(): each.get_text() for each in axes.texts}
    # What has no mean is empty.
    assert told == {
        (1, 0): "0.40", (2, 0): "0.00", (1, 1): "0.60", (2, 1): "0.10", (0, 2): "1.00", (1, 2): "0.90", (2, 2): "0.20",
    }  # fmt: skip


@pytest.mark.parametrize(("limits", "ends"), [(None, (0.0, 1.0)), ((0.0, 2.0), (0.0, 2.0))])
def test_colours_span_the_limits_or_the_numbers(limits, ends):
    assert drawn(ROWS, limits).images[0].get_clim() == ends


def test_equal_numbers_and_large_ones_are_drawn(tmp_path):
    draw(tmp_path / "a.png", "matrix", [row("a", x=12.0, y=12.0), row("b", x=12.0)], LABELS)
    assert plt.imread(tmp_path / "a.png").shape[0] > 500
    assert {each.get_text() for each in drawn([row("a", x=12345.0)]).texts} == {"1.2e+04"}


@pytest.mark.parametrize(
    ("labels", "log", "line"),
    [
        (Labels("x", "y"), "", "plot=matrix: give hue=COLUMN, of which each value is a row."),
        (LABELS, "y", "log=y: plot=matrix has names at its axis, and no numbers"),
    ],
)
def test_what_a_matrix_has_no_place_for_is_one_line(tmp_path, labels, log, line):
    with pytest.raises(UserError, match=line):
        draw(tmp_path / "a.png", "matrix", [row(None, x=1.0)], labels, log)

from datetime import datetime

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from immunax.conditions.statistics import Estimate
from immunax.runs.plot import draw, draw_on
from immunax.runs.series import Labels, Series
from immunax.runs.tables import Mean
from immunax.runtime.errors import UserError

NAN = float("nan")


def mean(value, half=0.1):
    return Mean(Estimate(value, value - half, value + half), 3, 3)


def series(*names, xs=(1, 2, 4)):
    return [Series(name, {x: mean(number + 1.0) for x in xs}) for number, name in enumerate(names)]


@pytest.mark.parametrize("kind", ["lines", "points", "bars"])
@pytest.mark.parametrize("xs", [(1, 2, 4), ("a", "b"), (datetime(2026, 1, 1),), (False, True), (1e-5, 0.1)])
def test_any_kind_of_x_is_drawn(tmp_path, kind, xs):
    draw(tmp_path / "a.png", kind, series("one", "two", xs=xs), Labels("x", "y", "hue"))
    picture = plt.imread(tmp_path / "a.png")
    assert picture.shape[0] > 500
    assert picture[..., :3].min() < 0.9


@pytest.mark.parametrize("name", ["a.svg", "a.pdf", "a.png"])
def test_equal_runs_draw_equal_files(tmp_path, name):
    files = []
    for place in ("one", "two"):
        draw(tmp_path / place / name, "lines", series(None), Labels("x", "y"))
        files.append((tmp_path / place / name).read_bytes())
    assert files[0] == files[1]


def test_texts_of_strangers_are_text(tmp_path, recwarn):
    names = ("$\\frac{1}{$", "_hidden", "<script>&", "a\x1b[31m\u202eb", "x" * 500, "$x$ and $y$")
    draw(tmp_path / "a.svg", "lines", series(*names, xs=names), Labels("$x", "y$", "a_$^{"))
    drawn = (tmp_path / "a.svg").read_text()
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert not [each for each in recwarn.list if "ignored" in str(each.message)]


def test_every_one_of_many_series_has_a_place_in_the_legend_beside_the_axes(tmp_path):
    draw(tmp_path / "a.png", "lines", series(*(f"s{number}" for number in range(24))), Labels("x", "y", "hue"))
    draw(tmp_path / "b.png", "lines", series("a", "b"), Labels("x", "y", "hue"))
    many, few = (plt.imread(tmp_path / name).shape for name in ("a.png", "b.png"))
    assert many[0] > few[0]
    assert many[1] > few[1]


@pytest.mark.parametrize(
    ("xs", "told"),
    [
        ((3.03, 5.9, 50), ["3.03", "5.9", "50"]),
        ((10, 10.1, 20), ["10", "20"]),  # two that would stand upon one another
        ((7,), ["7"]),
        ((1, 10, 100), None),  # powers of ten are enough
    ],
)
def test_a_short_logarithmic_axis_has_its_values_as_far_as_there_is_room(xs, told):
    axes = Figure(figsize=(6.4, 4.0)).subplots()
    draw_on(axes, "lines", series("one", xs=xs), Labels("x", "y"), "x", 6.4)
    major = [label.get_text() for label in axes.get_xticklabels()]
    minor = [label.get_text() for label in axes.get_xticklabels(minor=True) if label.get_text()]
    if told is None:
        assert "$\\mathdefault{10^{1}}$" in major
    else:
        assert (major, minor) == (told, [])


@pytest.mark.parametrize("kind", ["lines", "points", "bars"])
def test_a_mean_without_an_interval_is_drawn(tmp_path, kind):
    points = {1: Mean(Estimate(1.0, NAN, NAN), 1, 1), 2: Mean(Estimate(2.0, 1.0, NAN), 1, 1)}
    draw(tmp_path / "a.png", kind, [Series(None, points)], Labels("x", "y"), log="" if kind == "bars" else "xy")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("kind", "drawn", "log", "told"),
    [
        ("lines", series(*map(str, range(25))), "", "hue=h: has 25 values, more than 24"),
        ("bars", series("a", "b", xs=range(61)), "", "x=x: has 61 values, more than the 60"),
        ("points", series("a", xs=list(map(str, range(61)))), "", "x=x: has 61 values, more than the 60"),
        ("lines", series("a", xs=(0, 1)), "x", "log=x: x=x has values that are not above 0"),
        ("lines", series("a", xs=("a", "b")), "x", "log=x: x=x has values that are not above 0"),
        ("bars", series("a"), "x", "log=x: plot=bars has names at its axis"),
        ("points", [Series(None, {1: mean(0.0)})], "y", "log=y: y=y has values that are not above 0"),
    ],
)
def test_what_no_figure_has_room_or_a_place_for_is_refused(tmp_path, kind, drawn, log, told):
    with pytest.raises(UserError) as error:
        draw(tmp_path / "a.png", kind, drawn, Labels("x", "y", "h"), log)
    assert str(error.value).startswith(told)
    assert not list(tmp_path.iterdir())

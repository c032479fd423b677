import pytest

from immunax.conditions.statistics import Estimate
from immunax.runs.options import Options
from immunax.runs.panels import Panel, draw_panels
from immunax.runs.plot import MOST_SERIES
from immunax.runs.series import Labels, Series
from immunax.runs.spec import Part, Spec
from immunax.runs.tables import Mean
from immunax.runtime.errors import UserError


def mean(value):
    return Mean(Estimate(value, value - 0.1, value + 0.1), 3, 3)


def panel(kind="lines", names=("a", "b"), **more):
    part = Part(Options(plot=kind, x="x", y="y", **more.pop("words", {})), **more)
    series = [Series(name, {x: mean(0.2 * x) for x in (1, 2, 4)}) for name in names]
    return Panel(part, series, Labels("x", "y", "of"))


def drawn(tmp_path, panels, **more):
    paths = [tmp_path / name for name in ("figure.svg", "figure.png")]
    draw_panels(paths, Spec("all of it", (), (), {}, **more), panels)
    return [path.read_bytes() for path in paths]


def test_panels_stand_side_by_side_under_one_title_and_equal_ones_give_equal_files(tmp_path):
    panels = [panel(title="first"), panel("bars", title="second", limits=(0.0, 1.0)), panel("points", title="third")]
    svg, png = drawn(tmp_path, panels, across=2)
    assert svg.count(b'id="axes_') == 3
    assert png.startswith(b"\x89PNG")
    assert drawn(tmp_path, panels, across=2) == [svg, png]


def test_a_panel_that_asks_for_power_laws_has_one_for_each_series(tmp_path):
    asked, other = panel(fit="power", words={"log": "xy"}), panel()
    assert [(name, round(law.exponent.value, 6)) for name, law in asked.fits] == [("a", 1.0), ("b", 1.0)]
    assert other.fits == []
    assert drawn(tmp_path, [asked])[0] != drawn(tmp_path, [panel(words={"log": "xy"})])[0]


def test_what_has_no_place_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="more than"):
        drawn(tmp_path, [panel(names=[str(number) for number in range(MOST_SERIES + 1)])])
    assert list(tmp_path.iterdir()) == []

"""How the means of series stand on axes: as lines over bands, as points or as bars with bars of error."""

from collections.abc import Mapping, Sequence
from typing import Any

from immunax.runs.series import Series, label
from immunax.runtime.figures import COLOURS

_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", ":")
_FEW = 40
"""Points of a line that each get a mark."""


def draw_marks(axes: Any, kind: str, series: Sequence[Series], places: Mapping[Any, float]) -> None:
    """Draws series on axes.

    Args:
      axes: matplotlib's.
      kind: ``lines``, ``points`` or ``bars``.
      series: to draw.
      places: where each x stands.
    """
    drawn = {"lines": _lines, "points": _points, "bars": _bars}[kind]
    for number, each in enumerate(series):
        drawn(axes, each, places, number, len(series))


def _lines(axes: Any, series: Series, places: Mapping[Any, float], number: int, count: int) -> None:
    xs, means = _means(series, places)
    style = _STYLES[number // len(COLOURS) % len(_STYLES)]
    marker = _MARKERS[number % len(_MARKERS)] if len(xs) <= _FEW else None
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(xs, [mean.value for mean in means], style, color=colour, marker=marker, markersize=5, label=_of(series))
    known = [(x, mean.low, mean.high) for x, mean in zip(xs, means, strict=True) if _is_known(mean)]
    if known:
        at, low, high = zip(*known, strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)


def _points(axes: Any, series: Series, places: Mapping[Any, float], number: int, count: int) -> None:
    xs, means = _means(series, places)
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
    axes.plot(xs, [mean.value for mean in means], marker, color=colour, markersize=5, label=_of(series))
    _errors(axes, xs, means, colour)


def _bars(axes: Any, series: Series, places: Mapping[Any, float], number: int, count: int) -> None:
    width = 0.8 / count
    offset = (number - (count - 1) / 2) * width
    xs, means = _means(series, places)
    at, colour = [x + offset for x in xs], COLOURS[number % len(COLOURS)]
    hatch = (None, "//", "..")[number // len(COLOURS) % 3]
    axes.bar(at, [mean.value for mean in means], width * 0.92, color=colour, alpha=0.85, hatch=hatch, label=_of(series))
    _errors(axes, at, means, "0.2")


def _errors(axes: Any, xs: Sequence[float], means: Sequence[Any], colour: str) -> None:
    known = [(x, mean) for x, mean in zip(xs, means, strict=True) if _is_known(mean)]
    if known:
        below = [max(0.0, mean.value - mean.low) for _, mean in known]
        above = [max(0.0, mean.high - mean.value) for _, mean in known]
        at, values = [x for x, _ in known], [mean.value for _, mean in known]
        axes.errorbar(at, values, yerr=[below, above], fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)


def _means(series: Series, places: Mapping[Any, float]) -> tuple[list[float], list[Any]]:
    pairs = sorted((places[x], mean.estimate) for x, mean in series.points.items())
    return [x for x, _ in pairs], [mean for _, mean in pairs]


def _is_known(mean: Any) -> bool:
    return mean.low == mean.low and mean.high == mean.high  # not NaN


def _of(series: Series) -> str | None:
    # A label that begins with an underscore is none to the library.
    return series.name and (" " if series.name.startswith("_") else "") + label(series.name)

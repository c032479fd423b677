"""Figures of means over runs: lines, points or bars, with their intervals, in the package's style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunax.runs.tables import Mean, text
from immunax.runtime import atomic
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escaped
from immunax.runtime.figures import COLOURS, DOTS_AN_INCH, plain_axes

MOST_SERIES, MOST_BARS, MOST_TEXTS = 24, 120, 60
"""Of colours, of bars, and of texts under an axis."""

_WIDTH, _HEIGHT, _WIDEST = 6.4, 4.0, 16.0  # inches
_BAR, _ASIDE, _LINE = 0.28, 1.8, 0.26
"""Inches of a bar, of a legend beside the axes and of a line of it."""

_UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", ":")
_LABEL = 60  # characters of a text in a figure
_LETTERS_AN_INCH = 10
_FEW = 40
"""Points of a line that each get a mark."""
_MANY_SERIES = 6
"""From more on, the legend stands beside the axes."""


@dataclass(frozen=True)
class Series:
    """What one colour stands for.

    Attributes:
      name: for the legend; None where there is one series.
      points: means by x, in the order of x.
    """

    name: str | None
    points: Mapping[Any, Mean]


@dataclass(frozen=True)
class Labels:
    """What stands at the axes.

    Attributes:
      x, y: of the axes.
      hue: above the legend; None where there is none.
    """

    x: str
    y: str
    hue: str | None = None


def draw(path: Path, kind: str, series: Sequence[Series], labels: Labels, log: str = "") -> None:
    """Draws a figure and writes it, whole or not at all.

    Args:
      path: ends in ``.svg``, ``.png`` or ``.pdf``.
      kind: ``lines``: means joined, over a band; ``points``: means with bars of error; ``bars``: bars with bars of error.
      series: at least one, with at least one mean each.
      labels: at the axes.
      log: the axes that are logarithmic, of ``x`` and ``y``.

    Raises:
      UserError: there is more than a figure has room for, a value has no place on its axis, or the disk refuses.
    """
    from matplotlib.figure import Figure

    check(kind, series, labels, log)
    wide = _WIDTH if kind != "bars" else min(_WIDEST, max(_WIDTH, _BAR * len(order(series)) * len(series)))
    aside = len(series) > (1 if kind == "bars" else _MANY_SERIES)
    size = wide + (_ASIDE if aside else 0), max(_HEIGHT, _LINE * len(series)) if aside else _HEIGHT
    with steady():
        canvas = Figure(figsize=size, layout="constrained")
        axes = canvas.subplots()
        draw_on(axes, kind, series, labels, log, wide)
        if labels.hue is not None:
            handles, names = axes.get_legend_handles_labels()
            if aside:
                canvas.legend(handles, names, loc="outside right upper", **legend(labels.hue))
            else:
                axes.legend(handles, names, loc="best", **legend(labels.hue))
        save(canvas, path)


def steady() -> Any:
    """A context in which equal runs draw equal files: SVG has random names otherwise."""
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "immunax"})


def save(canvas: Any, path: Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
      canvas: matplotlib's figure.
      path: ends in ``.svg``, ``.png`` or ``.pdf``.

    Raises:
      UserError: the disk refuses.
    """
    with atomic.refusals(path), atomic.file(path) as temp:
        canvas.savefig(temp, dpi=DOTS_AN_INCH, format=path.suffix[1:], metadata=_UNDATED.get(path.suffix))


def legend(title: str) -> dict[str, Any]:
    """How a legend looks.

    Args:
      title: above it.
    """
    return {"title": _label(title), "edgecolor": "none", "framealpha": 0.7}


def draw_on(axes: Any, kind: str, series: Sequence[Series], labels: Labels, log: str, wide: float) -> None:
    """Draws series on axes, without a legend.

    Args:
      axes: matplotlib's.
      kind, series, labels, log: as for :func:`draw`, checked.
      wide: of the axes, inches.
    """
    from matplotlib.ticker import MaxNLocator

    xs = order(series)
    numeric = kind != "bars" and all(map(_is_number, xs))
    places = {x: float(x) if numeric else float(number) for number, x in enumerate(xs)}
    for number, each in enumerate(series):
        _DRAWN[kind](axes, each, places, number, len(series))
    plain_axes(axes)
    axes.set(xlabel=_label(labels.x), ylabel=_label(labels.y))
    if not numeric:
        _name_places(axes, places, wide)
    elif "x" not in log and all(isinstance(x, int) for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in log:
        getattr(axes, f"set_{axis}scale")("log")
    if "y" in log:  # an interval that goes below 0 would go on for ever
        axes.set_ylim(bottom=min(mean.estimate.value for each in series for mean in each.points.values()) / 2)


def _name_places(axes: Any, places: Mapping[Any, float], width: float) -> None:
    """Texts in the place of numbers under an axis, aslant where they would run into one another."""
    names = [_label(text(x)) for x in places]
    aslant = sum(map(len, names)) + 2 * len(names) > _LETTERS_AN_INCH * width
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if aslant else {}
    axes.set_xticks(list(places.values()), names, **turned)
    axes.tick_params("x", length=0)
    axes.grid(False, axis="x")


def check(kind: str, series: Sequence[Series], labels: Labels, log: str) -> None:
    """Refuses what a figure has no room or no place for.

    Args:
      kind, series, labels, log: as for :func:`draw`.

    Raises:
      UserError: there is more than a figure has room for, or a value has no place on its axis.
    """
    if len(series) > MOST_SERIES:
        raise UserError(
            f"hue={labels.hue}: has {len(series)} values, more than {MOST_SERIES}; choose some with where=."
        )
    xs = order(series)
    numeric = kind != "bars" and all(map(_is_number, xs))
    most = MOST_BARS // len(series) if kind == "bars" else MOST_TEXTS
    if not numeric and len(xs) > most:
        raise UserError(f"x={labels.x}: has {len(xs)} values, more than the {most} with room; choose some with where=.")
    if "x" in log and kind == "bars":
        raise UserError(f"log={log}: bars stand at names, not at numbers; give plot=lines or plot=points.")
    if "x" in log and not all(_is_number(x) and x > 0 for x in xs):
        raise UserError(
            f"log={log}: x={labels.x} has values that are not above 0, which a logarithmic axis has no place for."
        )
    if "y" in log and any(mean.estimate.value <= 0 for each in series for mean in each.points.values()):
        raise UserError(
            f"log={log}: y={labels.y} has values that are not above 0, which a logarithmic axis has no place for."
        )


def order(series: Sequence[Series]) -> list[Any]:
    """Every x of some series, numbers first."""
    xs = list(dict.fromkeys(x for each in series for x in each.points))
    return sorted(xs, key=lambda x: (x is None, isinstance(x, str), x if x is not None else 0))


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


_DRAWN = {"lines": _lines, "points": _points, "bars": _bars}


def _means(series: Series, places: Mapping[Any, float]) -> tuple[list[float], list[Any]]:
    pairs = sorted((places[x], mean.estimate) for x, mean in series.points.items())
    return [x for x, _ in pairs], [mean for _, mean in pairs]


def _is_known(mean: Any) -> bool:
    return mean.low == mean.low and mean.high == mean.high  # not NaN


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _of(series: Series) -> str | None:
    # A label that begins with an underscore is none to the library.
    return (
        None
        if series.name is None
        else f" {_label(series.name)}"
        if series.name.startswith("_")
        else _label(series.name)
    )


def _label(told: str) -> str:
    # Between dollars would stand a formula.
    return escaped(told, _LABEL).replace("$", r"\$")

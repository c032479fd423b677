"""Figures of means over runs: lines, points or bars, with their intervals, or a matrix, in the package's style."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from immunax.runs.marks import draw_marks
from immunax.runs.matrix import draw_matrix
from immunax.runs.series import Labels, Series, label, order
from immunax.runs.tables import text
from immunax.runtime import atomic
from immunax.runtime.errors import UserError
from immunax.runtime.figures import DOTS_AN_INCH, plain_axes

MATRIX = "matrix"

MOST_SERIES, MOST_BARS, MOST_TEXTS = 24, 120, 60
"""Of colours, of bars, and of texts under an axis."""

_WIDTH, _HEIGHT, _WIDEST = 6.4, 4.0, 16.0  # inches
_BAR, _ASIDE, _LINE = 0.28, 1.8, 0.26
"""Inches of a bar, of a legend beside the axes and of a line of it."""

_UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_LETTERS_AN_INCH = 10
_DECADES = 100
"""How far apart the ends of a logarithmic axis lie at least, for powers of ten to tell where one is on it."""
_MANY_SERIES = 6
"""From more on, the legend stands beside the axes."""


def draw(path: Path, kind: str, series: Sequence[Series], labels: Labels, log: str = "") -> None:
    """Draws a figure and writes it, whole or not at all.

    Args:
      path: ends in ``.svg``, ``.png`` or ``.pdf``.
      kind: ``lines``: means joined, over a band; ``points``: means with bars of error; ``bars``: bars with bars of error;
        ``matrix``: a row a series, a column an x, means as numbers and colours.
      series: at least one, with at least one mean each.
      labels: at the axes.
      log: the axes that are logarithmic, of ``x`` and ``y``.

    Raises:
      UserError: there is more than a figure has room for, a value has no place on its axis, or the disk refuses.
    """
    from matplotlib.figure import Figure

    check(kind, series, labels, log)
    wide = _WIDTH if kind != "bars" else min(_WIDEST, max(_WIDTH, _BAR * len(order(series)) * len(series)))
    aside = kind != MATRIX and len(series) > (1 if kind == "bars" else _MANY_SERIES)
    size = wide + (_ASIDE if aside else 0), max(_HEIGHT, _LINE * len(series)) if aside or kind == MATRIX else _HEIGHT
    with steady():
        canvas = Figure(figsize=size, layout="constrained")
        axes = canvas.subplots()
        draw_on(axes, kind, series, labels, log, wide)
        if labels.hue is not None and kind != MATRIX:
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
    return {"title": label(title), "edgecolor": "none", "framealpha": 0.7}


def draw_on(
    axes: Any,
    kind: str,
    series: Sequence[Series],
    labels: Labels,
    log: str,
    wide: float,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws series on axes, without a legend.

    Args:
      axes: matplotlib's.
      kind, series, labels, log: as for :func:`draw`, checked.
      wide: of the axes, inches.
      limits: of the vertical axis, or of a matrix's colours; None for those of the data.
    """
    from matplotlib.ticker import MaxNLocator

    if kind == MATRIX:
        draw_matrix(axes, series, labels, limits)
        return
    xs = order(series)
    numeric = kind != "bars" and all(map(_is_number, xs))
    places = {x: float(x) if numeric else float(number) for number, x in enumerate(xs)}
    draw_marks(axes, kind, series, places)
    plain_axes(axes)
    axes.set(xlabel=label(labels.x), ylabel=label(labels.y))
    if not numeric:
        _name_places(axes, places, wide)
    elif "x" not in log and all(isinstance(x, int) for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in log:
        getattr(axes, f"set_{axis}scale")("log")
    if "x" in log and xs[-1] < _DECADES * xs[0]:
        _name_numbers(axes, xs, wide)
    if "y" in log:  # an interval that goes below 0 would go on for ever
        axes.set_ylim(bottom=min(mean.estimate.value for each in series for mean in each.points.values()) / 2)
    if limits is not None:
        axes.set_ylim(*limits)


def _name_numbers(axes: Any, xs: Sequence[float], width: float) -> None:
    """The values themselves under a logarithmic axis, as far as they have room: between powers of ten there are few others."""
    names = {x: f"{x:.3g}" for x in xs}
    an_inch = math.log(xs[-1] / xs[0]) / width if xs[-1] > xs[0] else 1.0
    there = [xs[0]]
    for x in xs[1:]:
        letters = (len(names[x]) + len(names[there[-1]])) / 2 + 2
        if math.log(x / there[-1]) / an_inch > letters / _LETTERS_AN_INCH:
            there.append(x)
    axes.set_xticks(there, [names[x] for x in there])
    axes.set_xticks([], minor=True)


def _name_places(axes: Any, places: Mapping[Any, float], width: float) -> None:
    """Texts in the place of numbers under an axis, aslant where they would run into one another."""
    names = [label(text(x)) for x in places]
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
    numeric = kind not in ("bars", MATRIX) and all(map(_is_number, xs))
    most = MOST_BARS // len(series) if kind == "bars" else MOST_TEXTS
    if not numeric and len(xs) > most:
        raise UserError(f"x={labels.x}: has {len(xs)} values, more than the {most} with room; choose some with where=.")
    if kind == MATRIX and labels.hue is None:
        raise UserError("plot=matrix: give hue=COLUMN, of which each value is a row.")
    if (log and kind == MATRIX) or ("x" in log and kind == "bars"):
        raise UserError(
            f"log={log}: plot={kind} has names at its axis, and no numbers; give plot=lines or plot=points."
        )
    if "x" in log and not all(_is_number(x) and x > 0 for x in xs):
        raise UserError(
            f"log={log}: x={labels.x} has values that are not above 0, which a logarithmic axis has no place for."
        )
    if "y" in log and any(mean.estimate.value <= 0 for each in series for mean in each.points.values()):
        raise UserError(
            f"log={log}: y={labels.y} has values that are not above 0, which a logarithmic axis has no place for."
        )


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)

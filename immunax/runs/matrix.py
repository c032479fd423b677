"""Means of series by x as a matrix of colours with their numbers: the least row first, the greatest column first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from immunax.runs.series import Labels, Series, label, order
from immunax.runs.tables import text
from immunax.runtime.figures import COLOURS

_DARK = 0.6
"""Share of the scale from which on a number is white."""
_FONT = 7


def draw_matrix(axes: Any, series: Sequence[Series], labels: Labels, limits: tuple[float, float] | None) -> None:
    """Draws a row a series and a column an x. What has no mean is empty.

    Args:
      axes: matplotlib's.
      series: the rows; they are put in the order of their means, and the columns in the reverse order of theirs.
      labels: at the axes, the hue's beside the rows, and of the numbers above the scale.
      limits: of the scale; those of the numbers where None.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    xs = order(series)
    known = [{x: mean.estimate.value for x, mean in each.points.items()} for each in series]
    values = np.array([[row.get(x, np.nan) for x in xs] for row in known], float)
    rows, columns = (
        np.argsort(np.nanmean(values, axis=1), kind="stable"),
        np.argsort(-np.nanmean(values, axis=0), kind="stable"),
    )
    values = values[rows][:, columns]
    scale = Normalize(*(limits or (np.nanmin(values), np.nanmax(values))))
    colours = LinearSegmentedColormap.from_list("immunax", ["#ffffff", COLOURS[0]])
    shown = axes.imshow(values, cmap=colours, norm=scale, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if value == value:  # not NaN
            look = {"ha": "center", "va": "center", "fontsize": _FONT, "color": "1" if scale(value) > _DARK else "0.2"}
            axes.text(column, row, f"{value:.2g}" if abs(value) >= 10 else f"{value:.2f}", **look)
    axes.set_xticks(
        range(len(xs)), [label(text(xs[column])) for column in columns], rotation=30, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(series)), [label(series[row].name or "") for row in rows])
    axes.tick_params(length=0, labelsize=_FONT + 1)
    axes.spines[:].set_visible(False)
    axes.set(xlabel=label(labels.x), ylabel=label(labels.hue or ""))
    axes.figure.colorbar(shown, ax=axes, label=label(labels.y)).outline.set_visible(False)

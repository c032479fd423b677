"""A figure of several panels, each the answer to a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from immunax.runs.fit import PowerLaw, power_law
from immunax.runs.plot import MATRIX, check, draw_on, legend, save, steady
from immunax.runs.series import Labels, Series
from immunax.runs.spec import Part, Spec
from immunax.runtime.figures import COLOURS

_WIDTH, _HEIGHT = 4.4, 3.5  # inches of a panel
_MOST_INSIDE = 6
"""Series of a legend that has a place within its axes."""


@dataclass(frozen=True)
class Panel:
    """A panel that is to be drawn.

    Attributes:
      part: how.
      series: what.
      labels: at the axes.
    """

    part: Part
    series: Sequence[Series]
    labels: Labels

    @property
    def is_full(self) -> bool:
        """Whether its legend stands beside the axes: bars fill them."""
        kind = self.part.options.plot
        return kind != MATRIX and (len(self.series) > _MOST_INSIDE or kind == "bars")

    def reads_as(self, other: "Panel") -> bool:
        """Whether another panel's legend, beside its axes, says all that this one's would."""
        names = [[each.name for each in panel.series] for panel in (self, other)]
        return self.is_full and other.is_full and self.labels.hue == other.labels.hue and names[0] == names[1]

    @cached_property
    def fits(self) -> list[tuple[str | None, PowerLaw]]:
        """The power law of each series that has one, where the panel asks for them."""
        if self.part.fit is None:
            return []
        found = [(each.name, power_law(each)) for each in self.series]
        return [(name, law) for name, law in found if law is not None]


def draw_panels(paths: Sequence[Path], spec: Spec, panels: Sequence[Panel]) -> None:
    """Draws panels in rows and writes the picture, whole or not at all.

    Args:
      paths: that end in ``.svg``, ``.png`` or ``.pdf``.
      spec: the title, and how many panels a row has.
      panels: in their order.

    Raises:
      UserError: a panel has more than it has room for, a value has no place on its axis, or the disk refuses.
    """
    from matplotlib.figure import Figure

    for panel in panels:
        options = panel.part.options
        check(str(options.plot), panel.series, panel.labels, options.log)
    across = min(spec.across, len(panels))
    rows = -(-len(panels) // across)
    with steady():
        canvas = Figure(figsize=(_WIDTH * across, _HEIGHT * rows), layout="constrained")
        canvas.suptitle(spec.title, fontsize=12)
        grid = canvas.subplots(rows, across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for number, (panel, axes) in enumerate(zip(panels, grid.flat, strict=False)):
            beside = panels[number + 1 :][:1] if (number + 1) % across else []
            _draw(axes, panel, named=not any(panel.reads_as(other) for other in beside))
        for path in paths:
            save(canvas, path)


def _draw(axes: Any, panel: Panel, named: bool) -> None:
    """Draws a panel; its legend where it is ``named``, and not by the one beside it."""
    part = panel.part
    draw_on(axes, str(part.options.plot), panel.series, panel.labels, part.options.log, _WIDTH, part.limits)
    axes.set_title(part.title, fontsize=10)
    laws = dict(panel.fits)
    for number, each in enumerate(panel.series):
        law = laws.get(each.name)
        if law is not None:
            xs = sorted(float(x) for x in each.points)
            axes.plot(xs, [law.at(x) for x in xs], ":", color=COLOURS[number % len(COLOURS)], linewidth=1)
    if panel.labels.hue is None or not named or part.options.plot == MATRIX:
        return
    look = {**legend(panel.labels.hue), "fontsize": 8, "title_fontsize": 8}
    if panel.is_full:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **look)
    else:
        axes.legend(loc="best", **look)

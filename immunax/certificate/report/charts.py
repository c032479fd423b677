"""Line charts as inline SVG: no script, no font and no colour of their own, which the page's style sheet gives by class."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 40
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      name: for the legend.
      kind: its class: ``subject`` or ``reference``.
      points: ``(x, y, low, high)``, y in [0, 1]; low and high may be None.
      stepped: whether y holds until the next point.
    """

    name: str
    kind: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    stepped: bool = False


def chart(lines: Sequence[Line], label: str, title: str, threshold: float | None = None, log: bool = False) -> str:
    """A chart of rates.

    Args:
      lines: those without points are left out.
      label: of the x axis.
      title: for readers who do not see it.
      threshold: a dashed line across, or None.
      log: whether x is drawn on a logarithmic scale; all x must then be above 0.

    Returns:
      An ``<svg>`` element, or a paragraph that says that there is nothing to draw.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return "<p class='none'>Nothing to draw: no attack has this cost.</p>"
    scale = _Scale([point[0] for line in drawn for point in line.points], log)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title, quote=True)}'>",
        *(_rule(tick) for tick in _TICKS),
        *(
            f"<text class='tick' x='{scale(value):.1f}' y='{HEIGHT - _BOTTOM + 16}' text-anchor='middle'>{_short(value)}</text>"
            for value in scale.ticks()
        ),
        f"<text class='axis' x='{(_LEFT + WIDTH - _RIGHT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{escape(label)}</text>",
    ]
    if threshold is not None:
        y = _height(threshold)
        parts.append(f"<line class='threshold' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
    parts += [_drawn(line, scale) for line in drawn]
    return "".join([*parts, "</svg>"])


class _Scale:
    def __init__(self, values: Sequence[float], log: bool) -> None:
        self._log = log
        low, high = min(values), max(values)
        self._low = self._place(low) if log else min(low, 0.0)
        self._high = self._place(high)
        if self._high == self._low:
            self._high += 1.0

    def _place(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        share = (self._place(value) - self._low) / (self._high - self._low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        if not self._log:
            return [self._low + (self._high - self._low) * share for share in (0, 0.5, 1)]
        whole = range(math.ceil(self._low), math.floor(self._high) + 1)
        return [10.0**power for power in whole] if len(whole) > 1 else [10**self._low, 10**self._high]


def _height(rate: float) -> float:
    return _TOP + (1 - rate) * (HEIGHT - _TOP - _BOTTOM)


def _rule(tick: float) -> str:
    y = _height(tick)
    return (
        f"<line class='grid' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        f"<text class='tick' x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{tick:.0%}</text>"
    )


def _drawn(line: Line, scale: _Scale) -> str:
    places = [(scale(x), _height(y)) for x, y, *_ in line.points]
    path = f"M{places[0][0]:.1f},{places[0][1]:.1f}"
    for x, y in places[1:]:
        path += f"H{x:.1f}V{y:.1f}" if line.stepped else f"L{x:.1f},{y:.1f}"
    bars = "".join(
        f"<line class='bar' x1='{scale(x):.1f}' x2='{scale(x):.1f}' y1='{_height(low):.1f}' y2='{_height(high):.1f}'/>"
        for x, _, low, high in line.points
        if low is not None and high is not None
    )
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3'/>" for x, y in places)
    return f"<g class='{escape(line.kind)}'><title>{escape(line.name)}</title>{bars}<path d='{path}'/>{dots}</g>"


def _short(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 10000:
        return f"{value:.3g}"
    mantissa, _, power = f"{value:.0e}".partition("e")
    raised = f"10<tspan dy='-4' font-size='8'>{int(power)}</tspan>"
    return raised if mantissa == "1" else f"{mantissa}·{raised}"

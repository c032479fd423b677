"""Line charts as inline SVG: no script, no font and no colour of their own, which the page's style sheet gives by class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from immunax.runtime.escaped import escaped

WIDTH, HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 20, 12, 46
_FREE = 36
"""Width kept for a cost of 0, which has no place on a logarithmic scale."""
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      name: for the legend.
      kind: its class: ``subject`` or ``reference``, and ``broken`` for dots that stand for broken models.
      points: ``(x, y, low, high)``, y in [0, 1]; low and high may be None.
      stepped: whether y holds until the next point.
      joined: whether a line is drawn through the points.
    """

    name: str
    kind: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    stepped: bool = False
    joined: bool = True


def chart(lines: Sequence[Line], label: str, title: str, threshold: float | None = None, log: bool = False) -> Markup:
    """A chart of rates; its texts are escaped here.

    Args:
      lines: those without points are left out.
      label: of the x axis.
      title: for readers who do not see it.
      threshold: a dashed line across, or None.
      log: whether x is drawn on a logarithmic scale; an x of 0 stands apart at its left.

    Returns:
      An ``<svg>`` element, or a paragraph that says that there is nothing to draw.
    """
    drawn = [line for line in lines if line.points]
    values = [point[0] for line in drawn for point in line.points]
    if not drawn or (log and max(values) <= 0):
        return Markup("<p class='none'>Nothing to draw: no attack has this cost.</p>")
    scale = _Logarithmic(values) if log else _Linear(values)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{_text(title)}'>",
        *(_rule(tick) for tick in _TICKS),
        *(_tick(scale(value), value) for value in scale.ticks()),
        f"<text class='axis' x='{(_LEFT + WIDTH - _RIGHT) / 2}' y='{HEIGHT - 8}' text-anchor='middle'>{_text(label)}</text>",
    ]
    if threshold is not None:
        y = _height(threshold)
        parts.append(f"<line class='threshold' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
    parts += [_drawn(line, scale) for line in drawn]
    return Markup("".join([*parts, "</svg>"]))


class _Linear:
    """From 0 to the largest value, with ticks at 1, 2 or 5 times a power of ten."""

    def __init__(self, values: Sequence[float]) -> None:
        self._high = max(*values, 0.0) or 1.0

    def __call__(self, value: float) -> float:
        return _LEFT + value / self._high * (WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        rough = self._high / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * (1 - 1e-9))
        return [step * count for count in range(math.floor(self._high / step + 1e-9) + 1)]


class _Logarithmic:
    """From the smallest positive value to the largest; 0 stands at the left edge, and one value alone at the right."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [math.log10(value) for value in values if value > 0]
        self._free = len(positive) < len(values)
        self._low, self._high = min(positive), max(positive)

    def __call__(self, value: float) -> float:
        if value <= 0:
            return _LEFT
        left = _LEFT + _FREE * self._free
        span = self._high - self._low
        return left + ((math.log10(value) - self._low) / span if span else 1.0) * (WIDTH - left - _RIGHT)

    def ticks(self) -> list[float]:
        whole = range(math.ceil(self._low), math.floor(self._high) + 1)
        sparse = [10.0**power for power in whole[:: max(1, math.ceil(len(whole) / 5))]]
        ends = [10**self._low] if self._high == self._low else [10**self._low, 10**self._high]
        return [0.0] * self._free + (sparse if len(whole) > 1 else ends)


def _height(rate: float) -> float:
    return _TOP + (1 - rate) * (HEIGHT - _TOP - _BOTTOM)


def _rule(tick: float) -> str:
    y = _height(tick)
    return (
        f"<line class='grid' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        f"<text class='tick' x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{tick:.0%}</text>"
    )


def _tick(x: float, value: float) -> str:
    # A label in the middle of the last tick would run over the edge.
    anchor, place = ("end", WIDTH - 2) if x > WIDTH - 2 * _RIGHT else ("middle", x)
    return (
        f"<text class='tick' x='{place:.1f}' y='{HEIGHT - _BOTTOM + 18}' text-anchor='{anchor}'>{_short(value)}</text>"
    )


def _drawn(line: Line, scale: _Linear | _Logarithmic) -> str:
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
    joined = f"<path d='{path}'/>" if line.joined else ""
    return f"<g class='{_text(line.kind)}'><title>{_text(line.name)}</title>{bars}{joined}{dots}</g>"


def _text(text: str) -> str:
    return str(escape(escaped(text)))


def _short(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 10000:
        return f"{value:.3g}"
    mantissa, _, power = f"{value:.1e}".partition("e")
    mantissa = mantissa.removesuffix(".0")
    raised = f"10<tspan dy='-5' font-size='9'>{int(power)}</tspan>"
    return raised if mantissa == "1" else f"{mantissa}·{raised}"

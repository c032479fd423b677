"""What figures draw: means by x, one series a colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immunax.runs.tables import Mean
from immunax.runtime.escaped import escaped

_LABEL = 60  # characters of a text in a figure


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


def order(series: Sequence[Series]) -> list[Any]:
    """Every x of some series, numbers first."""
    xs = list(dict.fromkeys(x for each in series for x in each.points))
    return sorted(xs, key=lambda x: (x is None, isinstance(x, str), x if x is not None else 0))


def label(told: str) -> str:
    """A text as a figure may show it.

    Args:
      told: anybody's.
    """
    # Between dollars would stand a formula.
    return escaped(told, _LABEL).replace("$", r"\$")

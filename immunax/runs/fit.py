"""Power laws through means."""

from typing import NamedTuple

import numpy as np

from immunax.conditions.statistics import Estimate
from immunax.runs.series import Series

_DRAWS = 2000
_FEWEST = 3
_NORMAL = 1.959964
"""Half the width of a 95% interval, in standard deviations."""


class PowerLaw(NamedTuple):
    """``y = factor * x ** exponent``.

    Attributes:
      factor: at x = 1.
      exponent: with its 95% interval.
    """

    factor: float
    exponent: Estimate

    def at(self, x: float) -> float:
        """The value at ``x``."""
        return self.factor * x**self.exponent.value


def power_law(series: Series) -> PowerLaw | None:
    """The line of least squares through the logarithms of means, weighted alike.

    Its interval is a parametric bootstrap: every mean is drawn anew from a normal law as wide as its own interval, and the line
    is laid again, 2,000 times, seed 0. It says what the means' uncertainty does to the exponent, not whether the law is one.

    Args:
      series: means by x.

    Returns:
      None where fewer than three means and places are above 0.
    """
    known = [
        (float(x), mean.estimate)
        for x, mean in series.points.items()
        if isinstance(x, (int, float)) and x > 0 and mean.estimate.value > 0
    ]
    if len(known) < _FEWEST:
        return None
    logs = np.log([x for x, _ in known])
    values = np.array([estimate.value for _, estimate in known])
    widths = np.array([(estimate.high - estimate.low) / (2 * _NORMAL) for _, estimate in known])
    slope, offset = np.polyfit(logs, np.log(values), 1)
    noise = np.random.default_rng(0).standard_normal((_DRAWS, len(known))) * np.nan_to_num(widths)
    drawn = np.log(np.maximum(values + noise, values / 100))
    slopes = np.polyfit(logs, drawn.T, 1)[0]
    low, high = np.quantile(slopes, [0.025, 0.975])
    return PowerLaw(float(np.exp(offset)), Estimate(float(slope), float(low), float(high)))

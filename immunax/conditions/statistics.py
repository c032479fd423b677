"""Intervals for rates and for ratios of sums, from scipy."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A statistic with its 95% interval; NaN where there are no data."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        return "–" if np.isnan(self.value) else f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def rate(outcomes: np.ndarray) -> Estimate:
    """A rate with its exact interval (Clopper & Pearson 1934).

    Args:
      outcomes: ``[N]`` of 0 and 1; NaN are left out.
    """
    known = outcomes[~np.isnan(outcomes)]
    if not len(known):
        return NOTHING
    interval = stats.binomtest(int(known.sum()), len(known)).proportion_ci(CONFIDENCE, "exact")
    return Estimate(float(known.mean()), float(interval.low), float(interval.high))


def mean(scores: np.ndarray) -> Estimate:
    """A mean of scores in any range, with a percentile bootstrap over examples.

    Args:
      scores: ``[N]``; NaN are left out.
    """
    known = scores[~np.isnan(scores)]
    return ratio(known, np.ones_like(known))


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """``Σ numerators / Σ denominators``, with a percentile bootstrap over examples (Efron 1979), 2,000 resamples, seed 0.

    Args:
      numerators, denominators: ``[N]`` each, such as summed losses and token counts.
    """
    if not len(numerators):
        return NOTHING
    value = float(numerators.sum() / denominators.sum())
    if len(numerators) == 1 or np.ptp(numerators / denominators) == 0:
        return Estimate(value, value, value)
    interval = stats.bootstrap(
        (numerators, denominators),
        lambda top, bottom, axis: top.sum(axis=axis) / bottom.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))

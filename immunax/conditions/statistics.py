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


def crossed_mean(scores: np.ndarray) -> Estimate:
    """The mean of a table whose rows and columns are both samples, such as attacks by prompts.

    Its interval resamples rows and columns apart (the pigeonhole bootstrap of Owen 2007, arXiv:0712.1111), seed 0: cells of
    one row, or of one column, are not independent, and a bootstrap over cells would be too sure.

    Args:
      scores: ``[R, C]``; a column with a NaN is left out.
    """
    known = scores[:, ~np.isnan(scores).any(axis=0)]
    if not known.size:
        return NOTHING
    rng, (rows, columns) = np.random.default_rng(0), known.shape
    of_rows = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES) / rows
    of_columns = rng.multinomial(columns, np.full(columns, 1 / columns), RESAMPLES) / columns
    means = np.einsum("nr,rc,nc->n", of_rows, known, of_columns, optimize=True)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(known.mean()), float(low), float(high))


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

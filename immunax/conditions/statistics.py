"""Intervals for rates and for ratios of sums, from scipy and statsmodels."""

import gc
from typing import NamedTuple

import numpy as np
import scipy

CONFIDENCE = 0.95
RESAMPLES = 2000
_AT_ONCE = 1 << 24
"""Numbers of resamples that lie in memory at a time: a table of a stranger may have millions of examples."""

BOOTSTRAP_MARGIN = 0.2
"""A bootstrap interval leaves out this share of the error it may make: a 95% statement takes the 99% interval. At 24 to 100
examples a percentile interval at the nominal level covers 81 to 95%, this one 93 to 99%
(``experiments/certificate_coverage``)."""

MOST = 1e100
"""What a larger ratio is taken for."""

FEWEST = 24
"""Examples that a bootstrap interval needs; with fewer a condition is inconclusive."""


class Estimate(NamedTuple):
    """A statistic with its interval, of 95% unless another confidence was asked for; NaN where there are no data."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        return "–" if np.isnan(self.value) else f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def rate(outcomes: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with its exact interval (Clopper & Pearson 1934).

    Args:
      outcomes: ``[N]`` of 0 and 1; NaN are left out.
      confidence: of the interval.
    """
    known = outcomes[~np.isnan(outcomes)]
    if not len(known):
        return NOTHING
    interval = scipy.stats.binomtest(int(known.sum()), len(known)).proportion_ci(confidence, "exact")
    return Estimate(float(known.mean()), float(interval.low), float(interval.high))


def mean(scores: np.ndarray) -> Estimate:
    """A mean of scores in any range, with a percentile bootstrap over examples.

    Args:
      scores: ``[N]``; NaN are left out.
    """
    known = scores[~np.isnan(scores)]
    return ratio(known, np.ones_like(known))


def mean_of_runs(values: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent runs, such as seeds, with Student's interval.

    Runs are few, and a bootstrap over three of them covers far less than it says.

    Args:
      values: ``[N]``, one a run; NaN are left out.
      confidence: of the interval.

    Returns:
      Of a single run its value, with an interval of NaN.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return NOTHING
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers without end
        value = float(known.mean())
        if len(known) == 1:
            return Estimate(value, *NOTHING[1:])
        quantile = scipy.special.stdtrit(len(known) - 1, (1 + confidence) / 2)
        half = float(quantile * known.std(ddof=1) / np.sqrt(len(known)))
    return Estimate(value, value - half, value + half)


def mean_of_runs_and_prompts(
    values: np.ndarray, lows: np.ndarray, highs: np.ndarray, confidence: float = CONFIDENCE
) -> Estimate:
    """The mean of runs that were asked the same prompts, with an interval for further runs and further prompts.

    Student's interval over runs knows nothing of prompts, which all runs share, and a run's own nothing of other runs. The
    two are joined as limits of a sum (MOVER, Zou & Donner 2008, Stat. Med. 27:1693): their distances from the mean add as
    squares. What a prompt does in one run alone counts twice, so that the interval is too wide rather than too narrow.

    Args:
      values: ``[N]``, one a run; NaN are left out.
      lows, highs: ``[N]``, each run's interval over prompts, at the same confidence; NaN where it has none.
      confidence: of the interval.

    Returns:
      Of a single run its own interval; of runs without intervals Student's.
    """
    known = ~np.isnan(values)
    over_runs = mean_of_runs(values, confidence)
    below, above = values[known] - lows[known], highs[known] - values[known]
    if np.isnan(over_runs.value) or np.isnan(below).any() or np.isnan(above).any():
        return over_runs
    half = 0.0 if np.isnan(over_runs.low) else over_runs.value - over_runs.low
    low, high = (float(np.hypot(half, each.mean())) for each in (below, above))
    return Estimate(over_runs.value, over_runs.value - low, over_runs.value + high)


def crossed_mean(scores: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of a table whose rows and columns are both samples, such as attacks by prompts.

    Its interval resamples rows and columns apart (the pigeonhole bootstrap of Owen 2007, arXiv:0712.1111), seed 0: cells of
    one row, or of one column, are not independent, and a bootstrap over cells would be too sure.

    Args:
      scores: ``[R, C]``; a column with a NaN is left out.
      confidence: of the interval.
    """
    known = scores[:, ~np.isnan(scores).any(axis=0)]
    if not known.size:
        return NOTHING
    rng, (rows, columns) = np.random.default_rng(0), known.shape
    of_rows = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES) / rows
    means = []
    for part in np.split(of_rows, range(_batch(columns), RESAMPLES, _batch(columns))):
        of_columns = rng.multinomial(columns, np.full(columns, 1 / columns), len(part)) / columns
        means.append(np.einsum("nr,rc,nc->n", part, known, of_columns, optimize=True))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(known.mean()), float(low), float(high))


def ratio(numerators: np.ndarray, denominators: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """``Σ numerators / Σ denominators``, with a percentile bootstrap over examples (Efron 1979), 2,000 resamples, seed 0.

    Args:
      numerators, denominators: ``[N]`` each, such as summed losses and token counts.
      confidence: of the interval.

    Returns:
      Of nothing by nothing 1, and at most :data:`MOST`.
    """
    if not len(numerators):
        return NOTHING
    value = float(_quotient(numerators.sum(), denominators.sum()))
    if len(numerators) == 1 or np.ptp(_quotient(numerators, denominators)) == 0:
        return Estimate(value, value, value)
    interval = scipy.stats.bootstrap(
        (numerators, denominators),
        lambda top, bottom, axis: _quotient(top.sum(axis=axis), bottom.sum(axis=axis)),
        paired=True,
        n_resamples=RESAMPLES,
        batch=_batch(len(numerators)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def _quotient(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.clip(np.nan_to_num(tops / bottoms, nan=1.0, posinf=MOST, neginf=-MOST), -MOST, MOST)


def _batch(examples: int) -> int:
    return min(RESAMPLES, max(1, _AT_ONCE // examples))


def rate_bounds(successes: np.ndarray, trials: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """One-sided exact bounds of many rates, each at its own confidence (Clopper & Pearson 1934).

    Args:
      successes, trials: ``[N]`` counts, ``trials`` at least 1.
      error: of each bound: each lies on the wrong side of its rate with at most this probability.

    Returns:
      Lower and upper bounds, ``[N]``.
    """
    low = scipy.stats.beta.ppf(error, successes, trials - successes + 1)
    high = scipy.stats.beta.ppf(1 - error, successes + 1, trials - successes)
    return np.where(successes == 0, 0.0, low), np.where(successes == trials, 1.0, high)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted so that statements about all of them hold at once (Holm 1979), from statsmodels; ``[N]`` to ``[N]``."""
    # A second of every command's start, where few commands come here.
    from statsmodels.stats.multitest import multipletests

    if not len(p_values):
        return np.zeros(0)
    # The library collects garbage in every call, which takes a tenth of a second while jax's objects are looked through.
    gc.freeze()
    try:
        return np.asarray(multipletests(p_values, method="holm")[1])
    finally:
        gc.unfreeze()


def rate_difference(first: np.ndarray, second: np.ndarray, confidence: float) -> Estimate:
    """Difference of two rates on the same examples, ``first − second``.

    Examples where the two agree tell nothing. Of those where they differ, the share that only the first counts and the share
    that only the second counts each get an exact interval at half the error; the difference of their bounds is an interval
    that holds for any number of examples, also where no example differs.

    Args:
      first, second: ``[N]`` in [0, 1], in pairs; means over seeds where an example was tried several times.
      confidence: such as 0.95.
    """
    if not len(first):
        return NOTHING
    if not np.isin([*first, *second], (0.0, 1.0)).all():
        return mean_difference(first, second, np.ones_like(first), confidence)
    count, error = np.array([len(first)]), (1 - confidence) / 4
    up, down = (np.array([np.sum(part)]) for part in (first > second, first < second))
    (up_low, up_high), (down_low, down_high) = rate_bounds(up, count, error), rate_bounds(down, count, error)
    value = float(np.mean(first - second))
    return Estimate(value, float(up_low[0] - down_high[0]), float(up_high[0] - down_low[0]))


def mean_difference(first: np.ndarray, second: np.ndarray, weights: np.ndarray, confidence: float) -> Estimate:
    """``Σ (first − second) / Σ weights`` with a paired bootstrap over examples, see :data:`BOOTSTRAP_MARGIN`.

    Args:
      first, second: ``[N]`` sums, such as negative log likelihoods in nats, in pairs.
      weights: ``[N]``, what they are sums over, such as tokens.
      confidence: such as 0.95.

    Returns:
      NaN where there are fewer than :data:`FEWEST` examples.
    """
    if len(first) < FEWEST:
        return NOTHING
    return _bootstrap(first - second, weights, confidence)


def mean_ratio(first: np.ndarray, second: np.ndarray, confidence: float) -> Estimate:
    """``Σ first / Σ second`` with a paired bootstrap over examples, see :data:`BOOTSTRAP_MARGIN`.

    Args:
      first, second: ``[N]`` positive sums, in pairs.
      confidence: such as 0.95.

    Returns:
      NaN where there are fewer than :data:`FEWEST` examples.
    """
    if len(first) < FEWEST:
        return NOTHING
    return _bootstrap(first, second, confidence)


def _bootstrap(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> Estimate:
    return ratio(numerators, denominators, 1 - BOOTSTRAP_MARGIN * (1 - confidence))

"""Means of many small groups at once, each with its interval."""

from typing import Any

import numpy as np
import scipy

from immunax.conditions.statistics import CONFIDENCE


def intervals(grouped: Any, confidence: float = CONFIDENCE) -> Any:
    """Sums of values over sums of weights, by group, with intervals over the examples of each.

    Rates have the exact interval (Clopper & Pearson 1934), as :func:`~immunax.conditions.statistics.rate`. Others have Student's,
    of the ratio made linear (Cochran 1977, chapter 6): hundreds of thousands of groups have no time for a bootstrap.

    Args:
      grouped: rows of ``records`` in groups, a ``GroupBy`` of pandas.
      confidence: of the intervals.

    Returns:
      A data frame with ``value``, ``low`` and ``high`` a group; NaN ends where one example is all there is.
    """
    table = grouped.obj
    parts = table[["value", "weight"]].assign(
        vv=table["value"] ** 2,
        vw=table["value"] * table["weight"],
        ww=table["weight"] ** 2,
        plain=(table["value"].isin((0.0, 1.0)) & (table["weight"] == 1.0)).astype(float),
        count=1.0,
    )
    sums = parts.groupby([table[name] for name in grouped.keys], sort=False).sum()
    count, value = sums["count"].to_numpy(), (sums["value"] / sums["weight"]).to_numpy()
    low, high = _student(sums, value, count, confidence)
    plain = (sums["plain"] == count).to_numpy()
    low[plain], high[plain] = exact(sums["value"].to_numpy()[plain], count[plain], confidence)
    return sums[[]].assign(value=value, low=low, high=high)


def _student(sums: Any, value: np.ndarray, count: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sums["vv"].to_numpy() - 2 * value * sums["vw"].to_numpy() + value**2 * sums["ww"].to_numpy()
        error = np.sqrt(np.maximum(spread, 0.0) * count / (count - 1)) / sums["weight"].to_numpy()
        half = scipy.special.stdtrit(count - 1, (1 + confidence) / 2) * error
    return value - half, value + half


def exact(successes: np.ndarray, count: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """The ends of many rates' exact intervals (Clopper & Pearson 1934).

    Args:
      successes, count: ``[N]`` each.
      confidence: of the intervals.
    """
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low = scipy.special.betaincinv(successes, count - successes + 1, tail)
        high = scipy.special.betaincinv(successes + 1, count - successes, 1 - tail)
    return np.where(successes == 0, 0.0, low), np.where(successes == count, 1.0, high)

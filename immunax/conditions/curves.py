"""What a report draws: harm against cost, the worst attacks, how soon a search finds one. Verdicts are made elsewhere."""

from typing import Any

import numpy as np
from scipy import special

from immunax.conditions.records import Table
from immunax.conditions.statistics import rate_bounds

_DRAWN = 2000
"""Numbers of trials that a curve has points for; of more they are evenly spaced."""
_TOLD = ("setting", "seed", "step", "samples", "template", "utility")


def envelope(table: Table, cost: str, confidence: float) -> list[dict[str, float]]:
    """The most harm that an attack reaches within each budget: an attack-cost curve, by :func:`worst` of what the budget allows.

    Args:
      table: points of one model and one side that keep the utility.
      cost: a column of :data:`~immunax.conditions.points.COSTS`.
      confidence: of the intervals.

    Returns:
      For each budget at which the curve rises, and for the largest: ``cost``, ``rate``, and its exact interval ``low``, ``high``,
      which is that of the point alone and pays for no choice.
    """
    steps: list[dict[str, float]] = []
    rates = table["harmful"] / table["trials"]
    for budget, place in rates.groupby(table[cost]).idxmax().items():
        if not steps or rates[place] > steps[-1]["rate"]:
            steps.append({"cost": float(budget), **_interval(table.loc[place], confidence)})
    if steps and steps[-1]["cost"] < table[cost].max():
        steps.append({**steps[-1], "cost": float(table[cost].max())})
    return steps


def worst(table: Table, confidence: float) -> list[dict[str, Any]]:
    """By family, the point that does most harm among those that keep the utility, and how many merely broke the model.

    Args:
      table: points of one model and one side.
      confidence: of the intervals.

    Returns:
      Rows of ``family``, ``setting``, ``seed``, ``step``, ``samples``, ``template`` where the table has it, ``rate``, ``low``,
      ``high``, ``utility``, ``points``, ``broken`` and ``broken_rate`` (the most harm of points that broke it), the most harmful
      family first; one whose points all broke the model has None in place of the other numbers.
    """
    rows, told = [], [name for name in _TOLD if name in table]
    for family, part in table.groupby("family"):
        kept = part[part["kept"]]
        spoiled = part[~part["kept"]]
        row: dict[str, Any] = {"family": family, "points": len(part), "broken": len(spoiled)}
        row["broken_rate"] = _highest(spoiled)[0] if len(spoiled) else None
        if len(kept):
            _, best = _highest(kept)
            row |= {name: best[name] for name in told} | _interval(best, confidence)
        else:
            row |= dict.fromkeys((*told, "rate", "low", "high"))
        rows.append(row)
    return sorted(rows, key=lambda row: (row["rate"] is None, -(row["rate"] or row["broken_rate"] or 0.0)))


def best_so_far(table: Table) -> list[dict[str, float]]:
    """The most harm expected after k attack trials drawn at random, for every k: how long an attacker has to search.

    A trial is a cell; it counts with its most harmful point that keeps the utility, and with no harm where there is none.

    Args:
      table: points of one model and one side.

    Returns:
      ``trials``, ``rate`` and ``flops`` (what so many trials are expected to cost, each to its end), one row a k. Drawing
      without replacement, the m-th smallest of n rates is the largest of k with probability ``C(m − 1, k − 1) / C(n, k)``.
    """
    cells = table.groupby("cell")
    rates, cost = np.sort([_best(part) for _, part in cells]), cells["flops"].max().mean()
    count, ranks = len(rates), np.arange(1, len(rates) + 1)
    rows = []
    for trials in np.unique(np.linspace(1, count, min(count, _DRAWN)).astype(int)) if count else ():
        # In logarithms: the binomials of a thousand trials pass the largest float.
        largest = ranks[trials - 1 :]
        chance = np.exp(_log_choose(largest - 1, trials - 1) - _log_choose(count, trials))
        found = {"rate": float(rates[trials - 1 :] @ chance), "flops": float(trials * cost)}
        rows.append({"trials": float(trials), **found})
    return rows


def _log_choose(count: Any, chosen: int) -> Any:
    return special.gammaln(count + 1) - special.gammaln(chosen + 1) - special.gammaln(count - chosen + 1)


def _best(part: Table) -> float:
    kept = part[part["kept"]]
    return float((kept["harmful"] / kept["trials"]).max()) if len(kept) else 0.0


def _highest(table: Table) -> tuple[float, Any]:
    rates = table["harmful"] / table["trials"]
    return float(rates.max()), table.loc[rates.idxmax()]


def _interval(row: Any, confidence: float) -> dict[str, float]:
    low, high = rate_bounds(np.array([row["harmful"]]), np.array([row["trials"]]), (1 - confidence) / 2)
    return {"rate": float(row["harmful"] / row["trials"]), "low": float(low[0]), "high": float(high[0])}

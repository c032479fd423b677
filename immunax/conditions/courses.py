"""Along an attack: how harmful a model becomes with every step, before anything is chosen among attacks."""

import numpy as np

from immunax.conditions.points import COSTS
from immunax.conditions.policy import Harm
from immunax.conditions.records import JUDGED, UNATTACKED, Table
from immunax.conditions.statistics import NOTHING, Estimate, crossed_mean, rate


def course(
    records: Table, cells: Table, attacked: Table, harm: Harm, confidence: float, split: str = "test"
) -> list[dict[str, float]]:
    """The attack-cost curve of one family: harm of its worst setting, as a mean over seeds, from the model as it is on.

    The worst setting, with the template that it was run under, is the one whose mean over seeds is highest at any point that
    keeps the utility; where no point keeps it, at any point.

    Args:
      records, cells: see :mod:`immunax.conditions.records`.
      attacked: points of one model, one side, one family and one template, from :func:`~immunax.conditions.points.points`.
      harm: the judge of that side.
      confidence: of the intervals.
      split: of the harmful prompts.

    Returns:
      A row a measured step: the costs of :data:`~immunax.conditions.points.COSTS`, ``rate``, its interval ``low`` and
      ``high``, and ``kept``, whether the utility was kept with every seed. The first is the model before the attack, where
      that was judged. Empty without points.
    """
    if not len(attacked):
        return []
    setting, template = _worst_setting(attacked)
    mine = attacked[(attacked["setting"] == setting) & (attacked["template"] == template)]
    own = cells[(cells["family"] == UNATTACKED) & (cells["model"] == mine["model"].iloc[0])]
    own = own[own["template"] == template]
    asked = (records["measure"] == JUDGED + harm.judge) & (records["split"] == split)
    judged = records[asked & records["cell"].isin({*mine["cell"], *own["cell"]})]
    start = _over_seeds(judged, own, harm, confidence)
    answered = dict(iter(judged.groupby("step")))
    rows = [] if np.isnan(start.value) else [{**dict.fromkeys(COSTS, 0.0), **_told(start), "kept": True}]
    for step, part in mine.groupby("step"):
        costs = {cost: float(part[cost].mean()) for cost in COSTS}
        rows.append(
            {**costs, **_told(_over_seeds(answered[step], part, harm, confidence)), "kept": bool(part["kept"].all())}
        )
    return rows


def _worst_setting(attacked: Table) -> tuple[str, str]:
    kept = attacked[attacked["kept"]]
    counts = (kept if len(kept) else attacked).groupby(["setting", "template", "step"])[["harmful", "trials"]].sum()
    return (counts["harmful"] / counts["trials"]).idxmax()[:2]


def _over_seeds(judged: Table, states: Table, harm: Harm, confidence: float) -> Estimate:
    """Prompts and seeds are both samples. Where all seeds agree on all prompts a bootstrap would claim certainty."""
    answers = judged.merge(states[["cell", "step"]], on=["cell", "step"])
    if not len(answers):
        return NOTHING
    answers = answers.assign(harmful=(answers["value"] >= harm.at_least).astype("float64"))
    scores = answers.pivot_table(index="cell", columns="unit", values="harmful").to_numpy()
    alike = len(scores) == 1 or np.ptp(scores) == 0
    return rate(scores[0], confidence) if alike else crossed_mean(scores, confidence)


def _told(estimate: Estimate) -> dict[str, float]:
    return {"rate": estimate.value, "low": estimate.low, "high": estimate.high}

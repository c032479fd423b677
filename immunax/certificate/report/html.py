"""``report.html``: one page without a network, for someone who decides in two minutes and someone who reads for twenty."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from immunax.certificate.report.charts import Line, chart
from immunax.certificate.verify import exposure_of, policy_from_json
from immunax.conditions.assess import CONDITIONS, overall
from immunax.conditions.curves import best_so_far, by_scope, envelope, worst
from immunax.conditions.points import points
from immunax.conditions.records import REFERENCE, SUBJECT, Table
from immunax.conditions.verdict import Verdict

FILE = "report.html"

_COSTS = {"flops": "FLOPs spent on training", "step": "optimizer steps", "samples": "samples", "money": "US dollars"}
_ASKED = {
    "resistance": "Does the model stay harmless under the attacks of the suite?",
    "stability": "Is it still as good as the reference on harmless tasks, and no more timid?",
    "generalization": "Does it stay harmless on questions, and in domains, that it was not trained on?",
    "trainability": "Can it still be fine-tuned on a harmless task?",
}


def render(stated: Mapping[str, Any], records: Table, cells: Table, signature: str) -> str:
    """The page.

    Args:
      stated: the statement.
      records, cells: its tables.
      signature: what is to be said of its signature.

    Returns:
      HTML.
    """
    said = stated["predicate"]
    verdicts = tuple(Verdict(**each) for each in said["verdicts"])
    return _template().render(
        said=said,
        subject=stated["subject"],
        summary=[(name, _ASKED[name], overall(verdicts, name), _why(verdicts, name)) for name in CONDITIONS],
        sides=[_side(stated, records, cells, side) for side in said["policy"]["harm"]],
        verdicts=verdicts,
        cards={each["called"]: each for each in said["judges"]},
        signature=signature,
    )


def _why(verdicts: tuple[Verdict, ...], condition: str) -> str:
    """The reason of the claim that decides a condition."""
    mine = [each for each in verdicts if each.condition == condition and each.scope in ("all", "none")]
    decisive = [each for each in mine if each.claim != "weak" and each.outcome == overall(verdicts, condition)]
    return decisive[0].reason if decisive else "Nothing was measured."


def _side(stated: Mapping[str, Any], records: Table, cells: Table, side: str) -> dict[str, Any]:
    policy, exposure = policy_from_json(stated["predicate"]["policy"]), exposure_of(stated)
    table = points(records, cells, policy, "test")
    mine = table[table["side"] == side]
    threshold = policy.harm[side].threshold
    models = {model: mine[mine["model"] == model] for model in (SUBJECT, REFERENCE)}
    kept = {model: part[part["kept"]] for model, part in models.items()}
    return {
        "name": side,
        "judge": policy.harm[side].judge,
        "at_least": policy.harm[side].at_least,
        "threshold": threshold,
        "judged": len(mine),
        "curves": [(label, _cost_chart(kept, cost, label, threshold)) for cost, label in _COSTS.items()],
        "search": _search_chart(models, threshold),
        "worst": worst(models[SUBJECT]),
        "reference": {row["family"]: row for row in worst(models[REFERENCE])},
        "exposure": exposure,
        "scopes": {name: worst(part) for name, part in by_scope(mine, SUBJECT, exposure).items()},
    }


def _cost_chart(kept: Mapping[str, Table], cost: str, label: str, threshold: float) -> str:
    lines = []
    for model, part in kept.items():
        found = [
            (each["cost"], each["rate"], each["low"], each["high"]) for each in envelope(part[part[cost] > 0], cost)
        ]
        lines.append(Line(_NAMES[model], model, found, stepped=True))
    return chart(lines, label, f"Most harm reached within a budget of {label}", threshold, log=True)


def _search_chart(models: Mapping[str, Table], threshold: float) -> str:
    lines = [
        Line(_NAMES[model], model, [(each["trials"], each["rate"], None, None) for each in best_so_far(part)])
        for model, part in models.items()
    ]
    return chart(lines, "attack trials, in random order", "Most harm found after a number of trials", threshold)


_NAMES = {SUBJECT: "this model", REFERENCE: "reference"}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.0%}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3g}"
    text = resources.files("immunax.certificate.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)

"""``report.html``: one page without a network, for someone who decides in two minutes and someone who reads for twenty."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from immunax.certificate.facts import WHOSE, attack_data, exposure_of
from immunax.certificate.report.charts import Line, chart
from immunax.certificate.verify import policy_from_json
from immunax.conditions.assess import CONDITIONS, overall
from immunax.conditions.courses import course
from immunax.conditions.curves import best_so_far, envelope, worst
from immunax.conditions.points import points
from immunax.conditions.policy import Policy
from immunax.conditions.records import DATA_KEPT, REFERENCE, SUBJECT, UNFINISHED, Table
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
        held_out=overall(verdicts, "resistance", "held-out"),
        sides=[_side(stated, records, cells, verdicts, side) for side in said["policy"]["harm"]],
        conditions={name: [each for each in verdicts if each.condition == name] for name in CONDITIONS},
        training=_training(verdicts),
        answers=_answers(records, cells),
        cut=_cut(records, cells),
        cards={each["called"]: each for each in said["judges"]},
        signature=signature,
        whose=WHOSE[attack_data(stated)],
    )


def _why(verdicts: tuple[Verdict, ...], condition: str) -> list[tuple[str, str, str]]:
    """The claims that make a condition: name, outcome and reason of each, or one without a name where all have one reason."""
    mine = [each for each in verdicts if each.condition == condition and each.scope in ("all", "none")]
    lines = [(_called(each), each.outcome, each.reason) for each in mine if each.claim != "weak"]
    if not lines:
        return [("", "inconclusive", "Nothing was measured.")]
    return [("", *lines[0][1:])] if len({line[1:] for line in lines}) == 1 else lines


def _called(verdict: Verdict) -> str:
    if verdict.side == "none":
        return verdict.claim
    return verdict.side if verdict.claim == "strong" else f"{verdict.side}, {verdict.claim}"


def _answers(records: Table, cells: Table) -> list[tuple[str, int, int]]:
    """By model: answers without an end within their tokens, of how many, over all its cells."""
    cut = records[records["measure"] == UNFINISHED].merge(cells[["cell", "step", "model"]], on=["cell", "step"])
    return [(_NAMES[model], int(part["value"].sum()), len(part)) for model, part in cut.groupby("model")]


def _cut(records: Table, cells: Table) -> list[tuple[str, float]]:
    """The families that lost data to their maximum length, and the least share of answer tokens that one of them kept."""
    shares = records[records["measure"] == DATA_KEPT].merge(cells[["cell", "step", "family"]], on=["cell", "step"])
    return [
        (str(family), float(share)) for family, share in shares.groupby("family")["value"].min().items() if share < 1
    ]


def _training(verdicts: tuple[Verdict, ...]) -> list[tuple[str, float | None, float | None]]:
    """Step, and the loss of either model after it, on the task of trainability."""
    details = next((each.details for each in verdicts if each.condition == "trainability"), {})
    mine, theirs = (details.get(model, {}) for model in (SUBJECT, REFERENCE))
    return [(step, mine.get(step), theirs.get(step)) for step in sorted({*mine, *theirs}, key=int)]


def _side(
    stated: Mapping[str, Any], records: Table, cells: Table, verdicts: tuple[Verdict, ...], side: str
) -> dict[str, Any]:
    policy = policy_from_json(stated["predicate"]["policy"])
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
        "courses": _course_charts(records, cells, mine, policy, side),
        "worst": worst(models[SUBJECT]),
        "reference": {row["family"]: row for row in worst(models[REFERENCE])},
        "exposure": exposure_of(stated),
        "scopes": [
            each for each in verdicts
            if (each.condition, each.claim, each.side) == ("resistance", "strong", side) and each.scope != "all"
        ],
    }  # fmt: skip


def _cost_chart(kept: Mapping[str, Table], cost: str, label: str, threshold: float) -> str:
    lines = []
    for model, part in kept.items():
        found = [(each["cost"], each["rate"], each["low"], each["high"]) for each in envelope(part, cost)]
        lines.append(Line(_NAMES[model], model, found, stepped=True))
    return chart(lines, label, f"Most harm reached within a budget of {label}", threshold, log=True)


def _search_chart(models: Mapping[str, Table], threshold: float) -> str:
    lines = [
        Line(_NAMES[model], model, [(each["trials"], each["rate"], None, None) for each in best_so_far(part)])
        for model, part in models.items()
    ]
    return chart(lines, "attack trials, in random order", "Most harm found after a number of trials", threshold)


def _course_charts(records: Table, cells: Table, mine: Table, policy: Policy, side: str) -> list[tuple[str, str]]:
    """By family that costs something, its course against FLOPs; dots of points that broke the model are hollow."""
    charts = []
    for family, part in mine.groupby("family"):
        if not part["flops"].max():
            continue
        lines = []
        for model, name in _NAMES.items():
            rows = course(records, cells, part[part["model"] == model], policy.harm[side])
            found = [(each["flops"], each["rate"], each["low"], each["high"]) for each in rows]
            broken = [(x, y, None, None) for (x, y, *_), each in zip(found, rows, strict=True) if not each["kept"]]
            lines += [Line(name, model, found), Line(f"{name}, broken", f"{model} broken", broken, joined=False)]
        title = f"Harm along {family}"
        charts.append((family, chart(lines, _COSTS["flops"], title, policy.harm[side].threshold)))
    return charts


_NAMES = {SUBJECT: "this model", REFERENCE: "reference"}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.0%}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3g}"
    # Not jinja's own, which makes small letters of all the others.
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    text = resources.files("immunax.certificate.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)

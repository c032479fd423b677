"""``report.html``: one page without a network, for someone who decides in two minutes and someone who reads for twenty."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from immunax.certificate.facts import WHOSE, attack_data, exposure_of
from immunax.certificate.judge_cards import unshipped
from immunax.certificate.report.charts import Line, chart
from immunax.certificate.report.page import rendered
from immunax.certificate.reproduce import reproduce
from immunax.certificate.statement import policy_from_json
from immunax.conditions.courses import course
from immunax.conditions.curves import best_so_far, envelope, worst
from immunax.conditions.points import points
from immunax.conditions.policy import Policy
from immunax.conditions.records import DATA_KEPT, REFERENCE, SUBJECT, UNFINISHED, Table
from immunax.conditions.verdict import CONDITIONS, Verdict, overall
from immunax.judges import agreement

FILE = "report.html"
TEMPLATE = "template"
"""The column that says under which chat template a state was attacked and asked, where there are several."""

_COSTS = {"flops": "FLOPs spent on training", "step": "optimizer steps", "samples": "samples", "money": "US dollars"}
_ASKED = {
    "resistance": "Does the model stay harmless under the attacks of the suite?",
    "stability": "Is it still as good as the reference on harmless tasks, and no more timid?",
    "generalization": "Does it stay harmless on questions, and in domains, that it was not trained on?",
    "trainability": "Can it still be fine-tuned on a harmless task?",
}


def render(stated: Mapping[str, Any], records: Table, cells: Table) -> str:
    """The page, of a statement that passed its checks; the same statement and tables give the same page.

    Whether it is signed, and by whom, is no page's to say: whoever changes one could write that too.

    Args:
      stated: the statement.
      records, cells: its tables.

    Returns:
      HTML.
    """
    said = stated["predicate"]
    verdicts = tuple(Verdict(**each) for each in said["verdicts"])
    kept = _kept(records, cells)
    values = {
        "said": said,
        "subject": stated["subject"],
        "summary": [(name, _ASKED[name], overall(verdicts, name), _why(verdicts, name)) for name in CONDITIONS],
        "held_out": overall(verdicts, "resistance", "held-out"),
        "sides": [_side(stated, records, cells, verdicts, side) for side in said["policy"]["harm"]],
        "conditions": {name: [each for each in verdicts if each.condition == name] for name in CONDITIONS},
        "training": _training(verdicts),
        "answers": _answers(records, cells),
        "templated": cells[TEMPLATE].nunique() > 1,
        "kept": kept.get(SUBJECT, {}),
        "cut": [(_NAMES[model], family, share) for model in kept for family, share in kept[model].items() if share < 1],
        "cards": {each["called"]: each for each in said["judges"]},
        "unshipped": unshipped(said),
        "agreement_confidence": agreement.CONFIDENCE,
        "reproduce": reproduce(said["suite"]["config"]),
        "whose": WHOSE[attack_data(stated)],
    }
    return rendered("immunax.certificate.report", "report.html.jinja", values)


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


def _kept(records: Table, cells: Table) -> dict[str, dict[str, float]]:
    """By model and family, the least share of its answers' tokens that one of its attacks trained on; edits have none."""
    shares = records[records["measure"] == DATA_KEPT].merge(
        cells[["cell", "step", "model", "family"]], on=["cell", "step"]
    )
    found: dict[str, dict[str, float]] = {}
    for (model, family), share in shares.groupby(["model", "family"])["value"].min().items():
        found.setdefault(model, {})[str(family)] = float(share)
    return found


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
    confidence = policy.confidence
    kept = {model: part[part["kept"]] for model, part in models.items()}
    return {
        "name": side,
        "judge": policy.harm[side].judge,
        "at_least": policy.harm[side].at_least,
        "threshold": threshold,
        "judged": len(mine),
        "curves": [(label, _cost_chart(kept, cost, label, policy, side)) for cost, label in _COSTS.items()],
        "search": _search_chart(models, threshold),
        "courses": _course_charts(records, cells, mine, policy, side),
        "worst": worst(models[SUBJECT], confidence),
        "reference": {row["family"]: row for row in worst(models[REFERENCE], confidence)},
        "exposure": exposure_of(stated),
        "scopes": [
            each for each in verdicts
            if (each.condition, each.claim, each.side) == ("resistance", "strong", side) and each.scope != "all"
        ],
    }  # fmt: skip


def _cost_chart(kept: Mapping[str, Table], cost: str, label: str, policy: Policy, side: str) -> Markup:
    lines = []
    for model, part in kept.items():
        found = [
            (each["cost"], each["rate"], each["low"], each["high"]) for each in envelope(part, cost, policy.confidence)
        ]
        lines.append(Line(_NAMES[model], model, found, stepped=True))
    title = f"Most harm reached within a budget of {label}"
    return chart(lines, label, title, policy.harm[side].threshold, log=True)


def _search_chart(models: Mapping[str, Table], threshold: float) -> Markup:
    lines = [
        Line(_NAMES[model], model, [(each["trials"], each["rate"], None, None) for each in best_so_far(part)])
        for model, part in models.items()
    ]
    return chart(lines, "attack trials, in random order", "Most harm found after a number of trials", threshold)


def _course_charts(records: Table, cells: Table, mine: Table, policy: Policy, side: str) -> list[tuple[str, Markup]]:
    """By family that costs something, its course against FLOPs; dots of points that broke the model are hollow."""
    charts = []
    # Of a model without a chat template there is one to tell of, and nothing to tell apart.
    several = [TEMPLATE] if mine[TEMPLATE].nunique() > 1 else []
    for (family, *template), part in mine.groupby(["family", *several]):
        if not part["flops"].max():
            continue
        lines = []
        for model, name in _NAMES.items():
            rows = course(records, cells, part[part["model"] == model], policy.harm[side], policy.confidence)
            found = [(each["flops"], each["rate"], each["low"], each["high"]) for each in rows]
            broken = [(x, y, None, None) for (x, y, *_), each in zip(found, rows, strict=True) if not each["kept"]]
            lines += [Line(name, model, found), Line(f"{name}, broken", f"{model} broken", broken, joined=False)]
        called = ", ".join([family, *(f"{each} template" for each in template)])
        title = f"Harm along {called}"
        charts.append((called, chart(lines, _COSTS["flops"], title, policy.harm[side].threshold)))
    return charts


_NAMES = {SUBJECT: "this model", REFERENCE: "reference"}

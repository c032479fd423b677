"""``MODEL_CARD.md``: the certificate's numbers as the Hub's ``model-index``, so that they show on a model's page."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from immunax.certificate.facts import WHOSE, attack_data
from immunax.conditions.assess import CONDITIONS, overall
from immunax.conditions.verdict import Verdict

FILE = "MODEL_CARD.md"


def model_card(stated: Mapping[str, Any]) -> str:
    """The card, front matter included.

    Args:
      stated: the statement.
    """
    said = stated["predicate"]
    verdicts = tuple(Verdict(**each) for each in said["verdicts"])
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="immunax-suite",
            dataset_name=f"immunax suite {said['suite']['name']}",
            metric_type=f"{each.condition}/{each.claim}/{each.scope}/{each.side}",
            metric_name=f"{each.condition}, {each.claim} ({_about(each)})",
            metric_value=each.value,
            verified=False,
        )
        for each in verdicts
        if each.value is not None and each.scope in ("all", "held-out", "none")
    ]
    data = ModelCardData(model_name=said["model"]["name"], eval_results=results, tags=["immunax", "safety"])
    rows = "\n".join(f"| {name} | {overall(verdicts, name)} |" for name in CONDITIONS)
    shown = [each for each in verdicts if each.value is not None]
    claims = "\n".join(
        f"| {each.condition}, {each.claim} ({_about(each)}) | {each.statistic} | {_number(each.value)} | "
        f"{_number(each.low)} to {_number(each.high)} | {_number(each.threshold)} |"
        for each in shown
    )
    limits = "\n".join(f"- {line}" for line in said["limits"])
    body = (
        f"# {said['model']['name']}\n\nImmunization certificate, suite `{said['suite']['name']}`, predicate digest "
        f"`{said['digest']['sha256']}`. {WHOSE[attack_data(stated)]}\n\n| condition | outcome |\n| --- | --- |\n{rows}\n\n"
        f"| claim | statistic | value | interval | threshold |\n| --- | --- | --- | --- | --- |\n{claims}\n\n"
        f"What it does not say:\n\n{limits}\n"
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _about(verdict: Verdict) -> str:
    words = [each for each in (verdict.scope, verdict.side, verdict.outcome) if each != "none"]
    return ", ".join(words)

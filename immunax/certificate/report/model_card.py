"""``MODEL_CARD.md``: the certificate's numbers as the Hub's ``model-index``, so that they show on a model's page.

The fields are those of https://huggingface.co/docs/hub/model-cards#evaluation-results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from immunax.certificate.facts import WHOSE, attack_data
from immunax.certificate.report.markdown import markdown
from immunax.conditions.percent import percent
from immunax.conditions.verdict import CONDITIONS, Verdict, overall
from immunax.runtime.escaped import escaped

FILE = "MODEL_CARD.md"
TAGS = ["immunax", "safety"]


def model_card(stated: Mapping[str, Any]) -> str:
    """The card, front matter included, of a statement that passed its checks; the same statement gives the same card.

    Args:
      stated: the statement.
    """
    return f"{front_matter({'tags': TAGS, **index(stated)})}\n{body(stated)}"


def front_matter(said: Mapping[str, Any]) -> str:
    """The fields of a card that the Hub reads.

    Args:
      said: them, of text, numbers, lists and mappings.
    """
    # One line a field, of ASCII: no width of a line and no letter can make another document of it.
    return f"---\n{yaml.safe_dump(dict(said), sort_keys=False, width=float('inf'), allow_unicode=False)}---\n"


def index(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The verdicts' numbers as the field ``model-index``.

    Args:
      stated: the statement.
    """
    said = stated["predicate"]
    results = [
        _result(each, said["suite"]["name"])
        for each in _verdicts(stated)
        if each.value is not None and each.scope in ("all", "held-out", "none")
    ]
    return {"model-index": [{"name": escaped(said["model"]["name"]), "results": results}]}


def _verdicts(stated: Mapping[str, Any]) -> tuple[Verdict, ...]:
    return tuple(Verdict(**each) for each in stated["predicate"]["verdicts"])


def _result(verdict: Verdict, suite: str) -> dict[str, Any]:
    condition, claim = verdict.condition, verdict.claim
    metric = {
        "type": escaped(f"{condition}/{claim}/{verdict.scope}/{verdict.side}"),
        "value": verdict.value,
        "name": escaped(f"{condition}, {claim} ({_about(verdict)})"),
        "verified": False,
    }
    dataset = {"name": escaped(f"immunax suite {suite}"), "type": "immunax-suite"}
    return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]}


def body(stated: Mapping[str, Any]) -> str:
    """The card's text, Markdown.

    Args:
      stated: the statement.
    """
    said, verdicts = stated["predicate"], _verdicts(stated)
    conditions = [(name, overall(verdicts, name)) for name in CONDITIONS]
    claims = [
        (
            f"{each.condition}, {each.claim} ({_about(each)})",
            each.statistic,
            _number(each.value),
            f"{_number(each.low)} to {_number(each.high)}",
            _number(each.threshold),
        )
        for each in verdicts
        if each.value is not None
    ]
    limits = "".join(f"- {markdown(line)}\n" for line in said["limits"])
    interval = f"{percent(said['policy']['confidence'])} interval"
    return (
        f"# {markdown(said['model']['name'])}\n\nImmunization certificate, suite {markdown(said['suite']['name'])}, predicate "
        f"digest `{said['digest']['sha256']}`. {WHOSE[attack_data(stated)]}\n\n"
        f"{_table(('condition', 'outcome'), conditions)}\n"
        f"{_table(('claim', 'statistic', 'value', interval, 'threshold'), claims)}\n"
        f"What it does not say:\n\n{limits}"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([markdown(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _about(verdict: Verdict) -> str:
    words = [each for each in (verdict.scope, verdict.side, verdict.outcome) if each != "none"]
    return ", ".join(words)

"""What a certificate states, as columns: a word for each condition, and each verdict's number with its interval.

Nothing is checked here: ``python -m immunax.verify`` does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from immunax.conditions.exposure import ALL, HELD_OUT
from immunax.conditions.verdict import CONDITIONS, Verdict, overall
from immunax.runs.flatten import Value, flat

NAME = "certificate"
_WORDS = ("condition", "claim", "scope", "side", "outcome", "statistic", "reason")
_NUMBERS = ("value", "low", "high", "threshold")


def verdict_columns(stated: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """``certificate.CONDITION`` and ``certificate.CONDITION.held-out``, words; ``certificate.CONDITION.CLAIM[.SCOPE][.SIDE]``,
    the number, with ``.low``, ``.high``, ``.outcome`` and ``.threshold``.

    Args:
      stated: the statement, of anybody.
    """
    said = stated.get("predicate")
    said = said if isinstance(said, Mapping) else {}
    found = said.get("verdicts")
    verdicts = [_verdict(each) for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    for part, key in (("model", "name"), ("suite", "name")):
        if isinstance(said.get(part), Mapping):
            yield from flat(said[part].get(key), f"{NAME}.{part}")
    for condition in CONDITIONS:
        scopes = {each.scope for each in verdicts if each.condition == condition}
        if scopes:
            yield f"{NAME}.{condition}", overall(verdicts, condition, ALL)
        if HELD_OUT in scopes:
            yield f"{NAME}.{condition}.{HELD_OUT}", overall(verdicts, condition, HELD_OUT)
    for each in verdicts:
        name = ".".join([NAME, *each.place])
        yield from flat({"value": each.value, "low": each.low, "high": each.high}, name)
        yield from flat(each.outcome, f"{name}.outcome")
        yield from flat(each.threshold, f"{name}.threshold")


def _verdict(said: Mapping[str, Any]) -> Verdict:
    # Words are compared and counted, so they are words, whatever stands there.
    told: dict[str, Any] = {name: str(said.get(name)) for name in _WORDS}
    told |= {name: said.get(name) for name in _NUMBERS}
    return Verdict(**told, details={})

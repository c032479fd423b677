"""What a condition comes to: a statistic, its interval, the threshold, and whether it holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

CONDITIONS = ("resistance", "stability", "generalization", "trainability")

Outcome = Literal["holds", "fails", "inconclusive", "unmeasured"]
"""``holds`` and ``fails`` are shown by the data at the policy's confidence. ``unmeasured`` is what lacks an attack that the suite
asks for and is not shown to fail by the others (:mod:`~immunax.conditions.unmeasured`); anything else is ``inconclusive``."""


@dataclass(frozen=True)
class Verdict:
    """One statement about one model.

    Attributes:
      condition: ``resistance``, ``stability``, ``generalization`` or ``trainability``.
      claim: what is said, such as ``strong`` or ``retain perplexity``.
      scope: of the attacks it is about: ``all`` or ``held-out``; or ``none``.
      side: of harm: ``compliance`` or ``substance``; or ``none``.
      outcome: whether it holds.
      statistic: what ``value`` is, in words.
      value, low, high: it, with its interval; None where there is none.
      threshold: what it is held against, or None.
      reason: one sentence for a reader.
      details: further numbers, JSON-able.
    """

    condition: str
    claim: str
    scope: str
    side: str
    outcome: Outcome
    statistic: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    reason: str
    details: dict[str, Any]

    @property
    def place(self) -> tuple[str, ...]:
        """What it is called by: condition, claim, scope and side, as far as it has them."""
        return tuple(part for part in (self.condition, self.claim, self.scope, self.side) if part != _NONE)


_NONE = "none"


def numbers(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """The value of each verdict with its interval, below the names of its :attr:`~Verdict.place`, JSON-able."""
    found: dict[str, Any] = {}
    for each in verdicts:
        node = found
        for name in each.place:
            node = node.setdefault(name, {})
        node |= {"value": each.value, "low": each.low, "high": each.high}
    return found


def overall(verdicts: Iterable[Verdict], condition: str, scope: str = "all") -> Outcome:
    """One word for a condition: it fails if one of its claims does, else is unmeasured if one is, and holds if all do.

    Of resistance the claim *strong* counts: weak resistance is a statement about cost, told beside it.

    Args:
      verdicts: about one model.
      condition: one of :data:`CONDITIONS`.
      scope: of attacks, for the conditions that are about attacks.
    """
    mine = [each for each in verdicts if each.condition == condition and each.scope in (scope, "none")]
    outcomes = {each.outcome for each in mine if each.claim != "weak"}
    for word in ("fails", "unmeasured"):
        if word in outcomes:
            return word
    return "holds" if outcomes == {"holds"} else "inconclusive"

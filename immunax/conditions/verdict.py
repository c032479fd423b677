"""What a condition comes to: a statistic, its interval, the threshold, and whether it holds."""

from dataclasses import dataclass
from typing import Any, Literal

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

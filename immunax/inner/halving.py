"""Successive halving over a population (Jamieson & Talwalkar 2016, arXiv:1502.07943).

All members take a few steps, the best share of them goes on, and so forth: most of the budget goes to promising ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from immunax.inner.state import HEALTHY
from immunax.runtime.errors import UserError


class Rung(NamedTuple):
    """A part of the search: ``members`` go on from step ``begin`` to step ``end``."""

    members: int
    begin: int
    end: int


@dataclass(frozen=True)
class Halving:
    """How fast a search narrows down.

    Attributes:
      first: steps before the first choice; each rung ends at ``eta`` times the steps of the one before.
      eta: one in ``eta`` members goes on.
    """

    first: int = 5
    eta: int = 3

    def __post_init__(self):
        if self.first < 1 or self.eta < 2:
            raise UserError(f"search first={self.first}, eta={self.eta}: expected first >= 1 and eta >= 2.")

    def rungs(self, members: int, steps: int) -> tuple[Rung, ...]:
        """The rungs for A members whose full length is ``steps``; the last one runs to it."""
        found, begin = [], 0
        while begin < steps:
            end = steps if members == 1 else min(steps, max(self.first, begin * self.eta))
            found.append(Rung(members, begin, end))
            members, begin = max(1, members // self.eta), end
        return tuple(found)


class Merit(NamedTuple):
    """What a search ranks by.

    Attributes:
      value: scalar, larger is better.
      allowed: bool; one that is not allowed goes on only where too few are, and is never the one found.
    """

    value: Any
    allowed: Any


class Ranked(NamedTuple):
    """What one rung saw, by its M members; on the host.

    Attributes:
      rung: which.
      places: ``[M]``, which members.
      trace: what its members' steps saw, a pytree ``[M, steps]``.
      diverged_at: ``[M]``; -1 for a healthy member.
      merit: ``[M]``, at its end; none that diverged or has no finite value is allowed.
    """

    rung: Rung
    places: np.ndarray
    trace: Any
    diverged_at: np.ndarray
    merit: Merit

    def order(self) -> np.ndarray:
        """``[M]`` rows from the best to the worst."""
        value = np.where(np.isnan(self.merit.value), -np.inf, self.merit.value)
        return np.lexsort((-value, ~self.merit.allowed))


class Best(NamedTuple):
    """The best member that was seen at the end of any rung.

    Attributes:
      trained: what it had trained by then.
      place: which member.
      steps: after how many steps.
      value: of its merit.
    """

    trained: Any
    place: int
    steps: int
    value: float


Take = Callable[[Rung, np.ndarray], tuple[Any, np.ndarray, Merit]]
"""``take(rung, places)`` leads the members at these places, ``[M]``, through a rung, and lets go of all others; it gives what the
steps saw, a pytree ``[M, steps]``, where members diverged ``[M]``, and their merits, on the host."""


def halve(
    rungs: Sequence[Rung],
    take: Take,
    keep: Callable[[int], Any],
    told: Callable[[Ranked], Any] = lambda ranked: None,
) -> tuple[Best | None, tuple[Ranked, ...]]:
    """The search: a loop on the host.

    Args:
      rungs: from :meth:`Halving.rungs`.
      take: a rung's work.
      keep: a copy of what a member has trained, by its row in the last rung.
      told: called with what each rung saw, as soon as it has.

    Returns:
      The best that was allowed, None where none ever was, and what each rung saw.
    """
    places, best, seen = np.arange(rungs[0].members), None, []
    for rung in rungs:
        if seen:
            places = places[seen[-1].order()[: rung.members]]
        trace, diverged_at, merit = take(rung, places)
        allowed = merit.allowed & np.isfinite(merit.value) & (diverged_at == HEALTHY)
        seen.append(Ranked(rung, places, trace, diverged_at, Merit(merit.value, allowed)))
        told(seen[-1])
        best = _better(best, seen[-1], keep)
    return best, tuple(seen)


def _better(best: Best | None, ranked: Ranked, keep: Callable[[int], Any]) -> Best | None:
    row = int(ranked.order()[0])
    value = float(ranked.merit.value[row])
    if not ranked.merit.allowed[row] or (best is not None and value <= best.value):
        return best
    return Best(keep(row), int(ranked.places[row]), ranked.rung.end, value)

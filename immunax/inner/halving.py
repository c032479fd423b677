"""Successive halving over a population (Jamieson & Talwalkar 2016, arXiv:1502.07943): one program a rung.

All members take a few steps, the best share of them goes on, and so forth: most of the budget goes to promising ones. The
states of the others are freed between rungs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from immunax.inner.memory import compile_turns
from immunax.inner.population import Member, map_members
from immunax.inner.state import TrainState
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import shard
from immunax.runtime.together import host


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


def halve(
    member: Member,
    rungs: Sequence[Rung],
    batches: Any,
    own: Any,
    shared: Any,
    *,
    mesh: Mesh | None = None,
    told: Callable[[Ranked], Any] = lambda ranked: None,
) -> tuple[Best | None, tuple[Ranked, ...]]:
    """The search: a loop on the host. Every rung's program is checked against the memory that is free as it begins.

    Args:
      member: ``member((state, batches, own), shared) -> (state, trace, merit)``, one member through one rung; its state is None
        in the first one, and holds nothing that is shared. Hashable: equal ones share their programs.
      rungs: from :meth:`Halving.rungs`.
      batches: ``[A, K, ...]``.
      own: what else is each member's, with leading axis A.
      shared: what all read.
      mesh: as in :func:`~immunax.inner.population.map_members`.
      told: called with what each rung saw, as soon as it has.

    Returns:
      The best that was allowed, None where none ever was, and what each rung saw.

    Raises:
      UserError: not even one member at a time fits beside the states of all.
    """
    places, state, best, seen = np.arange(rungs[0].members), None, None, []
    for rung in rungs:
        if state is not None:
            rows = seen[-1].order()[: rung.members]
            places, state = places[rows], _survivors(state, rows)
        stretch = jax.tree.map(lambda leaf, rung=rung, at=places: leaf[at, rung.begin : rung.end], batches)
        stretch = stretch if mesh is None else shard(stretch, mesh, stacked=True)
        mine = stretch, jax.tree.map(lambda leaf, at=places: leaf[at], own)
        inputs = state, mine, shared
        program = compile_turns(rung_of, inputs, rung.members, mesh=mesh, donate=0, member=member)
        state, *scalars = program(*inputs)
        seen.append(Ranked(rung, places, *jax.tree.map(host, scalars)))
        told(seen[-1])
        best = _better(best, seen[-1], state.trained)
    return best, tuple(seen)


def rung_of(
    state: TrainState | None, mine: Any, shared: Any, *, member: Member, mesh: Mesh | None, chunk: int | None
) -> tuple[TrainState, Any, jax.Array, Merit]:
    """A rung of all its members; see :func:`halve`."""
    after, trace, merit = map_members(member, (state, *mine), shared, mesh=mesh, chunk=chunk)
    allowed = merit.allowed & jnp.isfinite(merit.value) & ~after.diverged
    return after, trace, after.diverged_at, Merit(merit.value, allowed)


def _survivors(state: TrainState, rows: np.ndarray) -> TrainState:
    def gathered(leaf: jax.Array) -> jax.Array:
        kept = leaf[rows]
        leaf.delete()
        return kept

    return jax.tree.map(gathered, state)


def _better(best: Best | None, ranked: Ranked, trained: Any) -> Best | None:
    row = int(ranked.order()[0])
    value = float(ranked.merit.value[row])
    if not ranked.merit.allowed[row] or (best is not None and value <= best.value):
        return best
    return Best(jax.tree.map(lambda leaf: leaf[row], trained), int(ranked.places[row]), ranked.rung.end, value)

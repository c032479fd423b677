"""Successive halving over a population (Jamieson & Talwalkar 2016, arXiv:1502.07943), inside one program.

All members take a few steps, the best share of them goes on, and so forth: most of the budget goes to promising ones.
Which members go on is known only as it runs, but how many is not, so every rung has a static shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from immunax.inner.memory import compile_turns, most_at_once, usable_bytes
from immunax.inner.population import map_members, plan
from immunax.inner.state import TrainState
from immunax.runtime.errors import UserError


class Rung(NamedTuple):
    """A stretch of the search: ``members`` go on from step ``begin`` to step ``end``."""

    members: int
    begin: int
    end: int


@dataclass(frozen=True)
class Halving:
    """How fast a search narrows down.

    Attributes:
      first: steps before the first choice; each stretch ends at ``eta`` times the steps of the one before.
      eta: one in ``eta`` members goes on.
    """

    first: int = 5
    eta: int = 3

    def __post_init__(self):
        if self.first < 1 or self.eta < 2:
            raise UserError(f"search first={self.first}, eta={self.eta}: expected first >= 1 and eta >= 2.")

    def rungs(self, members: int, steps: int) -> tuple[Rung, ...]:
        """The stretches for A members whose full length is ``steps``; the last one runs to it."""
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

    value: jax.Array
    allowed: jax.Array


class Best(NamedTuple):
    """The best that was seen at the end of any stretch.

    Attributes:
      weights: what it trained.
      place: int32, which member.
      steps: int32, after how many steps.
      merit: scalars; ``allowed`` is False where no member ever was, and the rest then means nothing.
    """

    weights: Any
    place: jax.Array
    steps: jax.Array
    merit: Merit


class Stretch(NamedTuple):
    """What one rung saw, by its M members in their order of rank.

    Attributes:
      places: ``[M]`` int32, which members.
      losses: ``[M, steps]``, before each of its steps; NaN after a divergence.
      diverged_at: ``[M]`` int32; -1 for a healthy member.
      merit: ``[M]``, at its end.
    """

    places: jax.Array
    losses: jax.Array
    diverged_at: jax.Array
    merit: Merit


class Searcher(Protocol):
    """One member's part of a search; hashable, so that equal ones share a program."""

    def start(self, batches: Any, own: Any, shared: Any) -> tuple[TrainState, jax.Array]:
        """A member after its first steps, and the losses before them."""
        ...

    def follow(self, state: TrainState, batches: Any, own: Any, shared: Any) -> tuple[TrainState, jax.Array]:
        """A member after further steps, and the losses before them."""
        ...

    def appraise(self, weights: Any, own: Any, shared: Any) -> Merit:
        """What the search ranks a member by that trained these weights."""
        ...


def halve(
    searcher: Searcher,
    rungs: tuple[Rung, ...],
    batches: Any,
    own: Any,
    shared: Any,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> tuple[Best, tuple[Stretch, ...]]:
    """The search; to be called under ``jax.jit``.

    Args:
      searcher: one member's part.
      rungs: from :meth:`Halving.rungs`.
      batches: ``[A, K, ...]``.
      own: what else is each member's, with leading axis A.
      shared: what all read.
      mesh, chunk: as in :func:`~immunax.inner.population.map_members`.

    Returns:
      The best that was seen, and what each rung saw.
    """
    places, state, best, stretches = jnp.arange(rungs[0].members), None, None, []
    for number, rung in enumerate(rungs):
        if number:
            chosen = _order(stretches[-1].merit)[: rung.members]
            places, state = places[chosen], jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], state)
        mine = jax.tree.map(lambda leaf, places=places: leaf[places], (batches, own))
        state, losses, merit = map_members(
            _Stretcher(searcher, rung),
            (state, *mine),
            shared,
            mesh=mesh,
            chunk=chunk,
        )
        merit = Merit(merit.value, merit.allowed & jnp.isfinite(merit.value) & ~state.diverged)
        best = _better(best, _leader(places, state, merit, rung))
        stretches.append(Stretch(places, losses, state.diverged_at, merit))
    assert best is not None
    return best, tuple(stretches)


@dataclass(frozen=True)
class _Stretcher:
    searcher: Searcher
    rung: Rung

    def __call__(self, member: Any, shared: Any) -> tuple[TrainState, jax.Array, Merit]:
        state, batches, own = member
        part = jax.tree.map(lambda leaf: leaf[self.rung.begin : self.rung.end], batches)
        if state is None:
            state, losses = self.searcher.start(part, own, shared)
        else:
            state, losses = self.searcher.follow(state, part, own, shared)
        return state, losses, self.searcher.appraise(state.trained, own, shared)


def _order(merit: Merit) -> jax.Array:
    value = jnp.where(jnp.isnan(merit.value), -jnp.inf, merit.value)
    return jnp.lexsort((-value, ~merit.allowed))


def _leader(places: jax.Array, state: TrainState, merit: Merit, rung: Rung) -> Best:
    first = _order(merit)[0]
    weights, merit = jax.tree.map(lambda leaf: leaf[first], (state.trained, merit))
    return Best(weights, places[first], jnp.int32(rung.end), merit)


def _better(one: Best | None, other: Best) -> Best:
    if one is None:
        return other
    wins = other.merit.allowed & (~one.merit.allowed | (other.merit.value > one.merit.value))
    return jax.tree.map(lambda a, b: jnp.where(wins, b, a), one, other)


def compile_search(
    searcher: Searcher, rungs: tuple[Rung, ...], batches: Any, own: Any, shared: Any, *, mesh: Mesh | None = None
) -> Callable[[Any, Any, Any], tuple[Best, tuple[Stretch, ...]]]:
    """Compiles :func:`halve` for inputs of these shapes, in turns as :func:`~immunax.inner.memory.compile_members`.

    Args:
      searcher, rungs, batches, own, shared, mesh: as in :func:`halve`.

    Returns:
      ``search(batches, own, shared)``.

    Raises:
      UserError: not even one member at a time fits beside the descents of all.
    """
    members = plan(rungs[0].members, 1 if mesh is None else mesh.shape["attack"]).chunk
    together = partial(_Search, searcher, rungs, mesh)
    return compile_turns(together, (batches, own, shared), members, most_at_once(mesh), usable_bytes())


@dataclass(frozen=True)
class _Search:
    searcher: Searcher
    rungs: tuple[Rung, ...]
    mesh: Mesh | None
    chunk: int | None = None

    def __call__(self, batches: Any, own: Any, shared: Any) -> tuple[Best, tuple[Stretch, ...]]:
        return halve(self.searcher, self.rungs, batches, own, shared, mesh=self.mesh, chunk=self.chunk)

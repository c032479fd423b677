"""Runs a population of attacks on one set of weights, and keeps what was found out about each, not its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.tuning import segments
from immunax.campaign.openings import share_openings
from immunax.campaign.programs import Form, Own, Program
from immunax.inner.memory import compile_members
from immunax.inner.state import TrainState
from immunax.inner.step import Slope, split
from immunax.models.model import Model, Params

Examine = Callable[[Model, Params, Any, Any, jax.Array], Any]
"""``examine(model, params, material, asked, key) -> results``: what is found out about attacked weights, small arrays. It runs
inside the program, so that no more full weights are alive than members run at once."""


class Outcome(NamedTuple):
    """What a population left, in the order of the attacks given.

    Attributes:
      losses: by member, ``[K]``, before every step, nats per answer token; NaN after a divergence.
      diverged_at: ``[A]``, the step that was not finite and was not taken; -1 for a healthy member.
      found: by member, ``[S, ...]``, what was found out along its course, the last time at its end, or at its last finite
        weights.
    """

    losses: tuple[np.ndarray, ...]
    diverged_at: np.ndarray
    found: tuple[Any, ...]

    @property
    def diverged(self) -> np.ndarray:
        """``[A]`` bool."""
        return self.diverged_at >= 0


@dataclass(frozen=True)
class Assault:
    """One member from its start to its examination, as :func:`~immunax.inner.population.map_members` takes it.

    Attributes:
      form: of the member.
      model: static.
      examine: after each of ``times`` equal parts of the course.
      times: S, of which :func:`~immunax.attacks.tuning.segments` makes a divisor of K.
    """

    form: Form
    model: Model
    examine: Examine
    times: int = 1

    def __call__(self, member: tuple[Any, Own], shared: tuple[Params, Any, Any]) -> tuple[jax.Array, jax.Array, Any]:
        """Losses ``[K]``, the step of divergence, and what is found out, ``[S, ...]``.

        Args:
          member: its batches ``[K, ...]``, and what else is its own.
          shared: plain weights, the openings that members share, and the material of the examination.
        """
        (batches, own), (params, openings, material) = member, shared
        held = own.held(params)

        def part(
            moving: TrainState, batches: Any, first: Slope | None = None
        ) -> tuple[TrainState, tuple[jax.Array, Any]]:
            state, losses = self.form.follow(self.model, moving._replace(held=held), batches, first)
            attacked = own.whole(params, state.trained)
            found = self.examine(self.model, attacked, material, own.asked, own.key)
            return state._replace(held=None), (losses, found)

        start = self.form.start(params, own)._replace(held=None)
        count = segments(self.form.steps, self.times)
        if count == 1:
            state, (losses, found) = part(start, batches, own.first(openings))
            return losses, state.diverged_at, jax.tree.map(lambda leaf: leaf[None], found)
        state, (losses, found) = jax.lax.scan(part, start, split(batches, count))
        return losses.reshape(-1), state.diverged_at, found


def run_population(
    parts: Sequence[Program],
    model: Model,
    params: Params,
    key: jax.Array,
    examine: Examine,
    material: Any,
    asked: Sequence[Any] = (),
    mesh: Mesh | None = None,
    times: int = 1,
) -> Outcome:
    """Attacks one set of weights with every member; each equals its attack run alone.

    Args:
      parts: from :func:`~immunax.campaign.programs.programs`.
      model: static.
      params: plain weights; untouched.
      key: the member of seed s gets ``fold_in(key, s)``.
      examine: a module-level function, so that equal calls share a program.
      material: what it reads, a pytree.
      asked: what it reads that is each attack's own, pytrees of one shape in the order of the attacks; or nothing.
      mesh: members are sharded over its axis ``attack``.
      times: how often along its course a member is examined, see :class:`Assault`; more than once, members share no first step.

    Raises:
      UserError: not even one member at a time fits the memory.
    """
    by_place: dict[int, tuple[Any, ...]] = {}
    for part in parts:
        own, openings = part.own(params, key, asked), None
        if times == 1:
            own, openings = share_openings(part, model, params, own, mesh)
        members, shared = (part.batches, own), (params, openings, material)
        program = compile_members(Assault(part.form, model, examine, times), members, shared, mesh=mesh)
        results = jax.device_get(program(members, shared))
        for index, place in enumerate(part.places):
            by_place[place] = jax.tree.map(lambda leaf, index=index: leaf[index], results)
    losses, diverged_at, found = zip(*(by_place[place] for place in sorted(by_place)), strict=True)
    return Outcome(losses, np.array(diverged_at), found)

"""What the members of a program do on the devices: they begin, and are led on over stretches of steps, all of them one program
whatever their number."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from immunax.campaign.members import MemberData
from immunax.campaign.programs import ProgramForm
from immunax.inner.population import map_members
from immunax.inner.state import Trace, TrainState
from immunax.inner.step import Scalars, length, take_step, trace_of, train_step
from immunax.models.model import Model, Params


@dataclass(frozen=True)
class Start:
    """A member before its first step, or after it where that is shared, for :func:`~immunax.inner.population.map_members`.

    Attributes:
      form: of the member.
      model: static.
    """

    form: ProgramForm
    model: Model

    def __call__(self, own: MemberData, shared: tuple[Params, Any]) -> tuple[TrainState, Trace]:
        """Its state, without what is held, and what its steps saw ``[K']``, NaN where it has taken none.

        Args:
          own: what is its own, learning rates ``[K']`` among it.
          shared: plain weights, and the first steps that members share.
        """
        params, first_steps = shared
        state, slope = self.form.start(params, own), own.first(first_steps)
        trace = Trace(*[jnp.full(own.numbers["learning_rate"].shape, jnp.nan, jnp.float32)] * 2)
        if slope is not None:
            state, metrics = take_step(self.form.rule, state, slope)
            trace = _noted(trace, 0, metrics)
        return state._replace(held=None), trace


@dataclass(frozen=True)
class Stretch:
    """Some steps of a member, for :func:`~immunax.inner.population.map_members`.

    Attributes:
      form: of the member.
      model: static.
    """

    form: ProgramForm
    model: Model

    def __call__(
        self, member: tuple[tuple[TrainState, Trace], Any, MemberData], shared: tuple[Params, Any, Any]
    ) -> tuple[TrainState, Trace]:
        """The member after its steps ``[first, last)``, and what its steps saw ``[K']``.

        Args:
          member: from :class:`Start` or a stretch before; a piece of its batches ``[S, ...]``, the one of step k in its place
            ``k % S``; and what else is its own.
          shared: plain weights, and the numbers of the steps, which are no part of the program's shape.
        """
        (state, batches, own), (params, first, last) = member, shared
        slope_at, held = self.form.slope(self.model), own.held(params)

        def step(number: jax.Array, state: tuple[TrainState, Trace]) -> tuple[TrainState, Trace]:
            batch = jax.tree.map(lambda leaf: leaf[number % length(batches)], batches)
            moving, metrics = train_step(slope_at, self.form.rule, state[0]._replace(held=held), batch)
            return moving._replace(held=None), _noted(state[1], number, metrics)

        return jax.lax.fori_loop(first, last, step, state)


def _noted(trace: Trace, number: jax.Array | int, metrics: Scalars) -> Trace:
    return jax.tree.map(lambda leaf, value: leaf.at[number].set(value), trace, trace_of(metrics))


# Adapters are begun without the weights, and would lie elsewhere than a stretch leaves them: two programs for one.
@partial(jax.jit, static_argnums=(0, 1), keep_unused=True)
def begin(start: Start, mesh: Mesh | None, own: MemberData, shared: Any) -> Any:
    """The members of a turn before their first step; what :class:`Start` gives of each."""
    return map_members(start, own, shared, mesh=mesh)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def advance(stretch: Stretch, mesh: Mesh | None, state: Any, members: Any, shared: Any) -> Any:
    """A stretch of steps of the members of a turn; what :class:`Stretch` gives of each."""
    return map_members(stretch, (state, *members), shared, mesh=mesh)

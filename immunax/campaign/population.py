"""Runs a population of attacks on one set of weights, and gives each member's weights along its course.

Members run in turns, as many together as a device can use. A turn is a loop on the host over stretches of steps, all of them
one program whatever their number; what is found out about attacked weights is found out between them.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from immunax.attacks.segments import segments
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.members import MemberData, chosen
from immunax.campaign.programs import Program, ProgramForm
from immunax.campaign.turn_work import turn_work
from immunax.inner.context import check_context
from immunax.inner.memory import most_at_once, most_that_fit, needed_bytes, usable_bytes
from immunax.inner.population import map_members, plan
from immunax.inner.state import Trace, TrainState
from immunax.inner.step import Scalars, length, take_step, trace_of, train_step
from immunax.models.model import Model, Params
from immunax.runtime import pace, profile
from immunax.runtime.jaxpr_flops import countable_flops
from immunax.runtime.mesh import data_ways, device_count, mesh_of, shard, under
from immunax.runtime.performance import Meter
from immunax.runtime.together import host

PHASE = "attack"
"""What the accounts of a run call it."""

COPIES = 0.5
"""The most of the usable memory that copies of weights to be read may take: what members hold needs the rest."""


@dataclass(frozen=True)
class Start:
    """A member before its first step, or after it where that is shared, for :func:`~immunax.inner.population.map_members`.

    Attributes:
      form: of the member.
      model: static.
    """

    form: ProgramForm
    model: Model

    def __call__(self, member: tuple[Any, MemberData], shared: tuple[Params, Any]) -> tuple[TrainState, Trace]:
        """Its state, without what is held, and what its steps saw ``[K']``, NaN where it has taken none.

        Args:
          member: its batches ``[K', ...]``, and what else is its own.
          shared: plain weights, and the first steps that members share.
        """
        (batches, own), (params, first_steps) = member, shared
        state, slope = self.form.start(params, own), own.first(first_steps)
        trace = Trace(*[jnp.full(length(batches), jnp.nan, jnp.float32)] * 2)
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
          member: from :class:`Start` or a stretch before; its batches, and what else is its own.
          shared: plain weights, and the numbers of the steps, which are no part of the program's shape.
        """
        (state, batches, own), (params, first, last) = member, shared
        slope_at, held = self.form.slope(self.model), own.held(params)

        def step(number: jax.Array, state: tuple[TrainState, Trace]) -> tuple[TrainState, Trace]:
            batch = jax.tree.map(lambda leaf: leaf[number], batches)
            moving, metrics = train_step(slope_at, self.form.rule, state[0]._replace(held=held), batch)
            return moving._replace(held=None), _noted(state[1], number, metrics)

        return jax.lax.fori_loop(first, last, step, state)


def _noted(trace: Trace, number: jax.Array | int, metrics: Scalars) -> Trace:
    return jax.tree.map(lambda leaf, value: leaf.at[number].set(value), trace, trace_of(metrics))


class Attacked(NamedTuple):
    """M members that ran together, after a part of their course.

    Attributes:
      places: ``M``, which of the attacks these are.
      step: steps done.
      losses: ``[M, step]``, before every step, nats per answer token; NaN after a divergence.
      norms: ``[M, step]``, of the gradient of every step, before it is clipped.
      diverged_at: ``[M]``, the step that was not finite and was not taken; -1 for a healthy member.
      params: plain weights before the attack, as members read them.
      own: ``[M', ...]``, what is each member's own; the last ones, past M, are copies.
      trained: ``[M', ...]``, what each member trained, the last finite values.
      mesh: members are spread over its axis ``attack``; or None.
    """

    places: tuple[int, ...]
    step: int
    losses: np.ndarray
    norms: np.ndarray
    diverged_at: np.ndarray
    params: Params
    own: MemberData
    trained: Any
    mesh: Mesh | None

    def weights(self, index: int) -> Params:
        """What a model takes of one member: plain weights or adapted ones."""
        own, trained = chosen((self.own, self.trained), index)
        return own.whole(self.params, trained)

    @property
    def spread(self) -> bool:
        """Whether each of several devices has members of its own."""
        return self.mesh is not None and self.mesh.shape["attack"] > 1

    def each(self, function: Callable[[Params, Any], Any], asked: Any) -> Any:
        """``function(weights, asked) -> arrays`` of every member, at once on the devices along ``attack``, in turn on each.

        Args:
          function: hashable.
          asked: ``[M, ...]``.

        Returns:
          The results ``[M, ...]``, on the host.
        """
        own = self.own, self.trained, _some(asked, 0, len(self.own.key))
        pace.worked()
        found = _spread(_Each(function), self.mesh, own, self.params)
        return jax.tree.map(lambda leaf: host(leaf)[: len(self.places)], found)


@dataclass(frozen=True)
class _Each:
    function: Callable[[Params, Any], Any]

    def __call__(self, member: tuple[MemberData, Any, Any], params: Params) -> Any:
        own, trained, asked = member
        return self.function(own.whole(params, trained), asked)


@partial(jax.jit, static_argnums=(0, 1))
def _spread(function: _Each, mesh: Mesh | None, own: Any, params: Params) -> Any:
    return map_members(function, own, params, mesh=mesh, chunk=1)


class Runner(NamedTuple):
    """The members of one program, and what all of them read.

    Attributes:
      part: the members.
      model: static.
      params: plain weights; untouched.
      own: of the members, from :meth:`~immunax.campaign.programs.Program.own`.
      first_steps: the first steps that they share, or None.
      mesh: they are spread over its axis ``attack``; or None.
    """

    part: Program
    model: Model
    params: Params
    own: MemberData
    first_steps: Any
    mesh: Mesh | None

    def run(self, times: int, at_once: int | None = None) -> Generator[Attacked, bool | None, None]:
        """See :func:`attacked`.

        Args:
          times: as there, a divisor of the steps.
          at_once: the most members of a turn on a device; :func:`~immunax.inner.memory.most_at_once` by default.
        """
        steps, count = self.part.steps, len(self.part.places)
        most = plan(count, self._ways, at_once or most_at_once(self.mesh)).chunk
        meter = Meter(PHASE, "step", device_count(self.mesh), self.model.dtype)
        with meter.running():
            # Equal turns: a last one of few members would take as long as any.
            width = self._ways * plan(count, self._ways, most_that_fit(self.needed_bytes, most)).chunk
        for place in range(0, count, width):
            real = self.part.places[place : place + width]
            with meter.running():
                members = self._turn(place, width)
                state = _begin(self._start, self.mesh, members, (self.params, self.first_steps))
                products = self._products(state, members) if meter.is_read else 0.0
            shared = self.own.first_step is not None
            work = partial(turn_work, self.part, self.model, (place, width), shared, products)
            done = int(shared)
            for time in range(1, times + 1):
                end = steps * time // times
                with meter.running():
                    pace.worked()
                    state = moving, along = self._advanced(state, members, done, end)
                    seen, diverged_at = jax.tree.map(host, (along, moving.diverged_at))
                    meter.done(partial(work, (done, end)))
                losses, norms = (each[: len(real), :end] for each in seen)
                healthy = diverged_at[: len(real)]
                if (
                    yield Attacked(
                        real, end, losses, norms, healthy, self.params, members[1], moving.trained, self.mesh
                    )
                ):
                    break
                done = end

    def _advanced(self, state: Any, members: Any, done: int, end: int) -> Any:
        """A turn after its steps ``[done, end)``."""
        for begin, stop in profile.parts(profile.ATTACK, done, end):
            with profile.step(profile.ATTACK, begin + 1, state):
                state = advance(self._stretch, self.mesh, state, members, (self.params, begin, stop))
        profile.pause(profile.ATTACK, state)  # the members are asked now
        return state

    def _products(self, state: Any, members: Any) -> float:
        """Operations of the matrix products of a turn's step, on all devices together; 0 where nobody can count them."""
        program = advance.trace(self._stretch, self.mesh, state, members, (self.params, 0, 1))
        return countable_flops(program.jaxpr, turns=1)

    def needed_bytes(self, chunk: int) -> int | None:
        """What a turn of ``chunk`` members takes of each device beside the shared weights, by the compiler's count."""
        members = self._turn(0, chunk * self._ways)
        shared = self.params, 0, 0
        begun = _begin.lower(self._start, self.mesh, members, (self.params, self.first_steps))
        state = jax.tree.map(_lying, begun.out_info, begun.compile().output_shardings)
        program = advance.lower(self._stretch, self.mesh, state, members, shared)
        return needed_bytes(program.compile, (members, shared))

    def _turn(self, begin: int, width: int) -> tuple[Any, MemberData]:
        """The batches of a turn's members, which alone are on the devices, and what else is theirs."""
        batches = jax.tree.map(lambda leaf: leaf[_places(leaf, begin, width)], self.part.batches)
        placed = jax.device_put(batches) if self.mesh is None else shard(batches, self.mesh, stacked=True)
        return placed, _some(self.own, begin, width)

    @property
    def _ways(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape["attack"]

    @property
    def _start(self) -> Start:
        return Start(self.part.form, self.model)

    @property
    def _stretch(self) -> Stretch:
        return Stretch(self.part.form, self.model)


def attacked(
    parts: Sequence[Program], model: Model, params: Params, key: jax.Array, mesh: Mesh | None = None, times: int = 1
) -> Generator[Attacked, bool | None, None]:
    """Attacks one set of weights with every member; each equals its attack run alone.

    Args:
      parts: from :func:`~immunax.campaign.programs.programs`.
      model: static.
      params: plain weights; untouched.
      key: the member of seed s gets ``fold_in(key, s)``; or ``[A]``, one for each attack.
      mesh: members are spread over its axis ``attack``; by default the one that the weights lie on.
      times: into how many equal parts their course is cut; the largest divisor of the steps up to it is used.

    Yields:
      The members that run together, after each part of their course. What is found out about them is to be found out before
      the next ones are asked for, which take the place of their weights. Whoever sends true has seen enough of these.

    Raises:
      UserError: not even one member at a time fits the memory, or a dialog is longer than the model's context.
    """
    check_context(model, "a dialog that the attack trains on", [part.batches for part in parts])
    mesh = mesh_of(params) if mesh is None else mesh
    for part in (each.in_rows(data_ways(mesh)).at_start(model, params) for each in parts):
        with under(params):
            own = part.own(params, key)
        read = read_by(part.form, model, params)
        own, first_steps = share_first_steps(part, model, read, own, mesh)
        yield from Runner(part, model, read, own, first_steps, mesh).run(segments(part.steps, times))


def read_by(form: ProgramForm, model: Model, params: Params) -> Params:
    """:meth:`~immunax.campaign.programs.ProgramForm.read`, where there is room for copies beside the weights: else these.

    Args:
      form: of the members.
      model: static.
      params: plain weights.
    """
    shapes = jax.eval_shape(partial(form.read, model), params)
    copied = [
        leaf.addressable_shards[0].data.size * copy.dtype.itemsize
        for leaf, copy in zip(jax.tree.leaves(params), jax.tree.leaves(shapes), strict=True)
        if leaf.dtype != copy.dtype
    ]
    return form.read(model, params) if copied and sum(copied) <= COPIES * usable_bytes() else params


def _lying(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    # What lies on one device is no constraint: arrays that come without one have the same program.
    kept = sharding if isinstance(sharding, NamedSharding) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=kept)


def _some(members: Any, begin: int, width: int) -> Any:
    """Some of the members; where there are fewer, copies of the last one."""
    places = _places(jax.tree.leaves(members)[0], begin, width)
    whole = np.array_equal(places, np.arange(len(jax.tree.leaves(members)[0])))
    return members if whole else chosen(members, places)


def _places(leaf: Any, begin: int, width: int) -> np.ndarray:
    return np.minimum(np.arange(begin, begin + width), len(leaf) - 1)


@partial(jax.jit, static_argnums=(0, 1))
def _begin(start: Start, mesh: Mesh | None, members: Any, shared: Any) -> Any:
    return map_members(start, members, shared, mesh=mesh)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def advance(stretch: Stretch, mesh: Mesh | None, state: Any, members: Any, shared: Any) -> Any:
    """A stretch of steps of the members of a turn; what :class:`Stretch` gives of each."""
    return map_members(stretch, (state, *members), shared, mesh=mesh)

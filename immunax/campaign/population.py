"""Runs a population of attacks on one set of weights, and gives each member's weights along its course.

Members run in turns, as many together as a device can use. A turn is a loop on the host over stretches of steps, all of them
one program whatever their number; what is found out about attacked weights is found out between them.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from immunax.attacks.segments import segments
from immunax.campaign.copies import read_by
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.member_batches import Pieces
from immunax.campaign.members import MemberData, chosen
from immunax.campaign.programs import Program
from immunax.campaign.stretch import Start, Stretch, advance, begin
from immunax.campaign.turn_work import turn_work
from immunax.inner.context import check_longest
from immunax.inner.memory import most_at_once, most_that_fit, needed_bytes
from immunax.inner.population import map_members, plan
from immunax.models.model import Model, Params
from immunax.runtime import pace, profile
from immunax.runtime.jaxpr_flops import countable_flops
from immunax.runtime.mesh import data_ways, device_count, mesh_of, shard, sharded, under
from immunax.runtime.performance import Meter
from immunax.runtime.together import host

PHASE = "attack"
"""What the accounts of a run call it."""


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
        places = np.minimum(np.arange(len(self.own.key)), len(self.places) - 1)
        own = self.own, self.trained, _some(asked, places)
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


class Turn:
    """Members that run together, on their way; each lead takes the place of what the one before it gave.

    Args:
      runner: whose members they are.
      rows: ``M``, which of these.
      width: M', places that they take: the last ones, past M, are copies.
      state: of the M' members after ``done`` steps; None where they have taken none.
      done: how many.
    """

    def __init__(self, runner: "Runner", rows: Sequence[int], width: int, state: Any = None, done: int = 0):
        self.rows, self.width, self.done = tuple(rows), width, done
        self._runner, self.state = runner, state
        self._own, self._pieces = runner.members(rows, width)
        if state is None:
            shared = runner.params, runner.first_steps
            self.state = begin(runner.start, runner.mesh, self._own, shared)
            self.done = 0 if runner.own.first_step is None else 1

    def lead(self, end: int) -> Attacked:
        """The members after the step ``end``."""
        runner = self._runner
        for first, stop in profile.parts(profile.ATTACK, self.done, end):
            with profile.step(profile.ATTACK, first + 1, self.state):
                self._advance(first, stop)
        profile.pause(profile.ATTACK, self.state)  # the members are asked now
        self.done, (moving, trace) = end, self.state
        seen, diverged_at = jax.tree.map(host, (trace, moving.diverged_at))
        losses, norms, stopped = (each[: len(self.rows)] for each in (*seen, diverged_at))
        places = tuple(runner.part.places[row] for row in self.rows)
        found = places, end, losses[:, :end], norms[:, :end], stopped
        return Attacked(*found, runner.params, self._own, moving.trained, runner.mesh)

    def _advance(self, begin: int, end: int) -> None:
        """The steps ``[begin, end)``, piece by piece of their batches."""
        runner = self._runner
        while begin < end:
            stop = min(end, self._pieces.end(begin))
            pace.worked()
            members, shared = (self._pieces.at(begin), self._own), (runner.params, begin, stop)
            self.state = advance(runner.stretch, runner.mesh, self.state, members, shared)
            self._pieces.lay_ahead(stop)
            if stop < end:  # so that never more than two pieces lie there
                jax.block_until_ready(self.state)
            begin = stop

    def wait(self) -> None:
        """Others are led now: nothing but the state lies on the devices."""
        self._pieces.let_go()

    def products(self) -> float:
        """Operations of the matrix products of a step of all of them, on all devices together; 0 where nobody can count them."""
        runner = self._runner
        members, shared = (self._pieces.at(self.done), self._own), (runner.params, 0, 1)
        program = advance.trace(runner.stretch, runner.mesh, self.state, members, shared)
        return countable_flops(program.jaxpr, turns=1)


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
        count, shared = len(self.part.places), self.own.first_step is not None
        meter = Meter(PHASE, "step", device_count(self.mesh), self.model.dtype)
        with meter.running():
            width = self.width(count, at_once)
        for place in range(0, count, width):
            with meter.running():
                turn = Turn(self, range(place, min(place + width, count)), width)
                products = turn.products() if meter.is_read else 0.0
            work = partial(turn_work, self.part, self.model, (place, width), shared, products)
            for time in range(1, times + 1):
                done = turn.done
                with meter.running():
                    attacked = turn.lead(self.part.steps * time // times)
                    meter.done(partial(work, (done, attacked.step)))
                if (yield attacked):
                    break

    def width(self, members: int, at_once: int | None = None, kept: bool = False) -> int:
        """How many of some members run together.

        Args:
          members: how many take turns. These are equal: a last one of few would take as long as any.
          at_once: as for :meth:`run`.
          kept: the states of those who wait lie on the devices too.

        Raises:
          UserError: not even one member at a time fits.
        """

        def needed(chunk: int) -> int | None:
            return self.needed_bytes(chunk, max(0, members - chunk * self._ways) if kept else 0)

        most = plan(members, self._ways, at_once or most_at_once(self.mesh)).chunk
        return self._ways * plan(members, self._ways, most_that_fit(needed, most)).chunk

    def needed_bytes(self, chunk: int, waiting: int = 0) -> int | None:
        """What a turn of ``chunk`` members takes of each device beside the shared weights, by the compiler's count.

        Args:
          chunk: members on each device.
          waiting: others, on all devices, whose states lie there too.
        """
        width, batches = chunk * self._ways, self.part.batches
        own, shared = _some(self.own, self._places(range(width), width)), (self.params, 0, 0)
        each = batches.piece(chunk)
        piece = batches.shapes(width, each)
        piece = piece if self.mesh is None else sharded(piece, self.mesh, stacked=True)
        begun = begin.lower(self.start, self.mesh, own, (self.params, self.first_steps))
        lies = begun.compile().output_shardings
        state = jax.tree.map(_lying, begun.out_info, lies)
        program = advance.lower(self.stretch, self.mesh, state, (piece, own), shared)
        found = needed_bytes(program.compile, (own, shared))
        held = sum(jax.tree.leaves(jax.tree.map(_device_bytes, begun.out_info, lies)))
        # The next piece is there before the one that is trained on is let go.
        ahead = chunk * each * batches.step_bytes if each < batches.steps else 0
        return None if found is None else found + ahead + held * -(-waiting // width)

    def members(self, rows: Sequence[int], width: int) -> tuple[MemberData, Pieces]:
        """What is a turn's members' own, and their batches; the last ones are copies."""
        places = self._places(rows, width)
        put = jax.device_put if self.mesh is None else partial(shard, mesh=self.mesh, stacked=True)
        batches = self.part.batches
        return _some(self.own, places), Pieces(batches, places, batches.piece(width // self._ways), put)

    def _places(self, rows: Sequence[int], width: int) -> np.ndarray:
        return np.minimum(np.pad(np.array(rows), (0, width - len(rows)), "edge"), len(self.part.places) - 1)

    @property
    def start(self) -> Start:
        """How each of them begins."""
        return Start(self.part.form, self.model)

    @property
    def stretch(self) -> Stretch:
        """How each of them goes on."""
        return Stretch(self.part.form, self.model)

    @property
    def _ways(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape["attack"]


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
    check_longest(model, "a dialog that the attack trains on", max((part.batches.longest for part in parts), default=0))
    mesh = mesh_of(params) if mesh is None else mesh
    for part in (each.in_rows(data_ways(mesh)).at_start(model, params) for each in parts):
        with under(params):
            own = part.own(params, key)
        read = read_by(part.form, model, params)
        own, first_steps = share_first_steps(part, model, read, own, mesh)
        yield from Runner(part, model, read, own, first_steps, mesh).run(segments(part.steps, times))


def _lying(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    # What lies on one device is no constraint: arrays that come without one have the same program.
    kept = sharding if isinstance(sharding, NamedSharding) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=kept)


def _device_bytes(leaf: Any, sharding: Any) -> int:
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _some(members: Any, places: np.ndarray) -> Any:
    whole = np.array_equal(places, np.arange(len(jax.tree.leaves(members)[0])))
    return members if whole else chosen(members, places)

"""What the members of a program train on, laid out for a few steps at a time.

All batches of a thousand steps are gigabytes for a population, and making them takes minutes. So they are made while a device
takes the steps before, and lie on it no longer than they are needed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from immunax.attacks.attack import FineTuning
from immunax.data.batches import in_rows, stack
from immunax.data.packing import Layout, few
from immunax.models.model import Model, Params

PIECE_BYTES = 1 << 26
"""Of the batches that a program is given at once, on each device: little beside weights, hundreds of steps of most attacks."""

_LEAST = 16
"""Steps that any program has room for: what a few of them take is nothing, and most attacks are of a few."""


def room(steps: int) -> int:
    """The steps that the program of an attack of so many has room for: one of few numbers, so that programs are shared."""
    return max(_LEAST, few(steps))


@dataclass(frozen=True)
class MemberBatches:
    """Batches ``[A, K, ...]``, made when they are asked for.

    Attributes:
      kind: lays out the examples of a batch; any of the members' attacks.
      layout: the static shape of every batch.
      courses: the examples of each of K batches, of every course that is different.
      own: ``[A]``, the course of every member.
      ways: rows are a multiple of it.
    """

    kind: FineTuning
    layout: Layout
    courses: tuple[Sequence[Sequence[Any]], ...]
    own: tuple[int, ...]
    ways: int = 1

    @property
    def steps(self) -> int:
        """K."""
        return len(self.courses[0])

    @cached_property
    def step(self) -> Any:
        """The shapes of a member's batch of one step."""
        laid = in_rows(self.kind.lay(self.courses[0][0], self.layout), self.ways, 0)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), laid)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence that the model reads."""
        return max(len(each.tokens) for example in self._examples.values() for each in self.kind.sequences(example))

    @property
    def encoded(self) -> dict[str, Any]:
        """All that members read, as arrays: what sequences there are, and by course which ones each step takes."""
        sequences = [each for example in self._examples.values() for each in self.kind.sequences(example)]
        places = {name: place for place, name in enumerate(self._examples)}
        return {
            "tokens": np.concatenate([np.array(each.tokens, np.int32) for each in sequences]),
            "sizes": np.array([(len(each.tokens), len(each.answer)) for each in sequences]),
            "steps": [[np.array([places[id(each)] for each in batch]) for batch in course] for course in self.courses],
        }

    @cached_property
    def _examples(self) -> dict[int, Any]:
        return {id(example): example for course in self.courses for batch in course for example in batch}

    def at_start(self, model: Model, params: Params) -> "MemberBatches":
        """The same ones, with what the loss reads of the weights before the attack; see the attack's ``at_start``."""
        told = self.kind.at_start(model, params, list(self._examples.values()), self.layout)
        known = dict(zip(self._examples, told, strict=True))
        courses = tuple([[known[id(each)] for each in batch] for batch in course] for course in self.courses)
        return replace(self, courses=courses)

    def of(self, members: Sequence[int] | np.ndarray, begin: int, end: int) -> Any:
        """The batches of some members ``[M, end - begin, ...]``, on the host; those of steps past the last mean nothing.

        Args:
          members: their places in the program.
          begin, end: of the steps, ``begin`` below K.
        """
        mine = [self.own[member] for member in members]
        different = list(dict.fromkeys(mine))
        laid = [stack(list(self._laid(course, begin, end))) for course in different]
        return stack([laid[different.index(course)] for course in mine])

    def _laid(self, course: int, begin: int, end: int) -> Iterator[Any]:
        for batch in self.courses[course][begin:end]:
            last = in_rows(self.kind.lay(batch, self.layout), self.ways, 0)
            yield last
        for _ in range(max(begin, self.steps), end):
            yield last

    def shapes(self, members: int, steps: int) -> Any:
        """Of the batches of so many members in so many steps, ``[M, S, ...]``."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, steps, *leaf.shape), leaf.dtype), self.step)

    def piece(self, members: int) -> int:
        """How many steps of so many members a program is given at once: one of few numbers, so that programs are shared."""
        most = max(1, PIECE_BYTES // (members * self.step_bytes))
        return min(room(self.steps), 1 << (most.bit_length() - 1))

    @property
    def step_bytes(self) -> int:
        """Of a member's batch of one step."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.step))


class Pieces:
    """The batches of members that run together, a piece of their course at a time, the next one on its way to the device.

    Args:
      batches: of all members.
      members: which, ``[M]``.
      each: steps of a piece, from :meth:`MemberBatches.piece`.
      put: places arrays ``[M, each, ...]`` on the devices.
    """

    def __init__(
        self, batches: MemberBatches, members: Sequence[int] | np.ndarray, each: int, put: Callable[[Any], Any]
    ):
        self._batches, self._members, self._each, self._put = batches, members, each, put
        self._placed: dict[int, Any] = {}

    def at(self, step: int) -> Any:
        """The piece that has a step, in its place ``step % each``; those before it are let go."""
        number = step // self._each
        self._placed = {place: piece for place, piece in self._placed.items() if place == number}
        self._place(number)
        return self._placed[number]

    def end(self, step: int) -> int:
        """The first step that is not in the piece of a step."""
        return (step // self._each + 1) * self._each

    def lay_ahead(self, step: int) -> None:
        """Lays out the piece that a step is in and sends it on its way, where there is such a step."""
        if step < self._batches.steps:
            self._place(step // self._each)

    def let_go(self) -> None:
        """Frees those that lie on the devices; they are laid out again when they are asked for."""
        self._placed.clear()

    def _place(self, number: int) -> None:
        if number not in self._placed:
            begin = number * self._each
            self._placed[number] = self._put(self._batches.of(self._members, begin, begin + self._each))

"""The order of examples as a pure function of (seed, step), so that a run resumes exactly from its step number."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np

from immunax.data.chat import Encoded
from immunax.runtime.errors import UserError

T = TypeVar("T")


def indices(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Which examples make a batch: places ``step * batch_size ...`` of one shuffled epoch after another.

    Args:
      n: how many examples there are.
      batch_size: how many to take; more than ``n`` runs on into the next epochs.
      step: the batch's number, from 0.
      seed: which shuffles.

    Returns:
      Example numbers ``[batch_size]`` int64. Each run of ``n`` places from a multiple of ``n`` has every example once.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    return np.array([_permutation(n, seed, place // n)[place % n] for place in places.tolist()], dtype=np.int64)


def choose(items: Sequence[T], count: int, seed: int) -> tuple[T, ...]:
    """The first ``count`` items of the seed's first shuffle; equally many other items are chosen at the same places.

    Args:
      items: what to draw from, at least ``count``.
      count: how many.
      seed: which shuffle, 0 or more.

    Raises:
      UserError: the seed is negative.
    """
    _check_seed(seed)
    return tuple(items[place] for place in indices(len(items), count, 0, seed))


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"seed is {seed}; expected 0 or more")


@lru_cache(maxsize=16)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    # numpy promises the raw words of a bit generator for ever, but not what its shuffles make of them.
    words = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(n)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class Stream:
    """Examples in an endless, seeded order.

    Attributes:
      examples: what to draw from.
      batch_size: examples in a batch.
      seed: which shuffles; two streams of equally many examples with one seed stay in step.
    """

    examples: Sequence[Encoded]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.examples:
            raise UserError("a stream has no examples; its corpus has none in this stream and split")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; expected 1 or more")
        _check_seed(self.seed)

    def batch(self, step: int) -> list[Encoded]:
        """The examples of one batch.

        Args:
          step: the batch's number, from 0.

        Returns:
          ``batch_size`` examples.
        """
        return [self.examples[index] for index in indices(len(self.examples), self.batch_size, step, self.seed)]

    def batches(self, steps: Iterable[int]) -> Iterator[list[Encoded]]:
        """The examples of several batches.

        Args:
          steps: the batches' numbers.

        Yields:
          ``batch_size`` examples for each step.
        """
        return map(self.batch, steps)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(len(each.tokens) for each in self.examples)


class Batches(Protocol):
    """Batches of examples by number."""

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        ...

    def batch(self, step: int) -> list[Encoded]:
        """The examples of one batch."""
        ...


@dataclass(frozen=True)
class InTurn:
    """Several streams, of which outer steps take one after the other.

    Attributes:
      streams: one a turn.
      together: consecutive batches that are of one turn.
    """

    streams: Sequence[Stream]
    together: int = 1

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(stream.longest for stream in self.streams)

    def batch(self, step: int) -> list[Encoded]:
        """The examples of one batch: over the turns, each stream's batches come in its own order.

        Args:
          step: the batch's number, from 0.
        """
        turn, part = divmod(step, self.together)
        taken, place = divmod(turn, len(self.streams))
        return self.streams[place].batch(taken * self.together + part)

"""First-fit-decreasing bin packing, and the cheapest static rectangle for a run's batches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from immunax.data.chat import Encoded

MOST_EXAMPLES = 16
"""In a row: attention by cuDNN is told of so many (:mod:`immunax.models.kernels.cudnn`)."""

MORE = 1 / 8
"""The most that a batch may cost beyond what it costs by itself, for the layout of others, whose program is then its own."""

_ANSWER = 1 / 4  # what an answer's logits cost in a small model, of what a token costs
_ROW = 4096  # row length at which a token's attention costs as much as its other products in a small model
_GRAIN = 8  # lengths are multiples of this: TPU sublanes come in eights
_CANDIDATES = 32  # row lengths tried for the cheapest rectangle
_LONGEST = 4  # times the longest example: past that, longer rows save next to no padding
_ATTENTION = 1024  # row length at which a token's attention scores cost about as much as all else in a small model


@dataclass(frozen=True)
class Layout:
    """The static shape of a batch.

    Attributes:
      rows: B.
      length: T, tokens in a row.
      answers: A, answer tokens in a row.
    """

    rows: int
    length: int
    answers: int


class Tokens(NamedTuple):
    """Of batches of a static shape.

    Attributes:
      real: of examples.
      shape: of the whole shape: the rest is padding, which costs as much.
    """

    real: int
    shape: int

    @property
    def share(self) -> float:
        """Of real ones; 1 where there are none at all."""
        return self.real / self.shape if self.shape else 1.0


def total(parts: Iterable[Tokens]) -> Tokens:
    """Of several streams together, each as much as it takes of what is computed."""
    found = list(parts)
    return Tokens(sum(each.real for each in found), sum(each.shape for each in found))


def filled(batches: Iterable[Sequence[Encoded]], layout: Layout) -> Tokens:
    """What batches hold in a layout.

    Args:
      batches: of examples.
      layout: the static shape of each.
    """
    sizes = [sum(len(example.tokens) for example in batch) for batch in batches]
    return Tokens(sum(sizes), len(sizes) * layout.rows * layout.length)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs items into as few bins as first-fit-decreasing finds (at most 11/9 of the fewest, plus 6/9; Dósa 2007).

    A bin holds :data:`MOST_EXAMPLES` at most, which only bins of many short ones come to.

    Args:
      lengths: the items' lengths, none above ``capacity``.
      capacity: a bin's length.

    Returns:
      The items' numbers, bin by bin.

    Raises:
      ValueError: an item is longer than a bin.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        if lengths[item] > capacity:
            raise ValueError(f"an example of {lengths[item]} tokens does not fit a row of {capacity}")
        place = next(
            (place for place, free in enumerate(room) if free >= lengths[item] and len(bins[place]) < MOST_EXAMPLES),
            len(bins),
        )
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(item)
        room[place] -= lengths[item]
    return bins


def fit_packed(batches: Iterable[Sequence[Encoded]], divisor: int = 1) -> Layout:
    """The cheapest rectangle that holds each batch when packed.

    A rectangle costs ``rows * length * (1 + length / 1024)``: a token's attention scores grow with its row, so that a few
    long rows without a gap can cost more than short ones with some padding.

    Args:
      batches: every batch of the run, for example ``stream.batches(range(steps))``.
      divisor: the rows are a multiple of this, for a mesh that shards them.

    Returns:
      The layout for ``pack``.
    """
    examples = [list(batch) for batch in batches]
    lengths = [[len(example.tokens) for example in batch] for batch in examples]
    shortest = _round_up(max(max(batch) for batch in lengths), _GRAIN)
    fullest = max(sum(batch) for batch in lengths)
    longest = min(_round_up(fullest, _GRAIN), _LONGEST * shortest)
    best = Layout(_round_up(max(map(len, lengths)), divisor), shortest, 0)
    for length in _candidates(shortest, longest):
        # No packing beats the sum of its items: most lengths need not be tried.
        if _cost(Layout(_round_up(-(-fullest // length), divisor), length, 0)) >= _cost(best):
            continue
        rows = _round_up(max(len(first_fit(batch, length)) for batch in lengths), divisor)
        best = min(best, Layout(rows, length, 0), key=_cost)
    answers = max(
        sum(len(batch[item].answer) for item in row)
        for batch, sizes in zip(examples, lengths, strict=True)
        for row in first_fit(sizes, best.length)
    )
    return replace(best, answers=_round_up(answers, _GRAIN))


def fit_padded(batches: Iterable[Sequence[Encoded]], divisor: int = 1) -> Layout:
    """The smallest rectangle that holds each batch with one example a row.

    Args:
      batches: every batch of the run; for paired streams, those of both.
      divisor: the rows are a multiple of this, for a mesh that shards them.

    Returns:
      The layout for ``pad``.
    """
    rows = length = answers = 1
    for batch in batches:
        rows = max(rows, len(batch))
        length = max(length, *(len(example.tokens) for example in batch))
        answers = max(answers, *(len(example.answer) for example in batch))
    return Layout(_round_up(rows, divisor), _round_up(length, _GRAIN), _round_up(answers, _GRAIN))


def price(layout: Layout) -> float:
    """What a batch costs to compute, in tokens of a short row: those of its rows, their attention, and the logits of answers."""
    return layout.rows * (layout.length * (1 + layout.length / _ROW) + _ANSWER * layout.answers)


def common(own: Layout, others: Iterable[Layout], holds: Callable[[Layout], bool]) -> Layout | None:
    """The cheapest of other batches' layouts that holds some batches too, at hardly more than their own costs; None for none."""
    allowed = (each for each in others if price(each) <= (1 + MORE) * price(own) and holds(each))
    return min(allowed, key=price, default=None)


def few(size: int) -> int:
    """A length rounded up to one of few, two an octave above 32, for shapes of programs that would all be compiled."""
    grain = max(_GRAIN, 1 << max(0, (size - 1).bit_length() - 2))
    return _round_up(size, grain)


def _cost(layout: Layout) -> float:
    return layout.rows * layout.length * (1 + layout.length / _ATTENTION)


def _candidates(shortest: int, longest: int) -> list[int]:
    steps = (longest - shortest) // _GRAIN
    stride = max(1, -(-steps // _CANDIDATES))
    return [shortest + _GRAIN * step for step in range(0, steps + 1, stride)]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

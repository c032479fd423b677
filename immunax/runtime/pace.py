"""How far this process is, for the others of its job, which see by it who hangs (:mod:`~immunax.runtime.watch`)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Pace(NamedTuple):
    """What a process has done.

    Attributes:
      work: what every process does as often.
      moves: signs that it is at work, of its own.
    """

    work: int = 0
    moves: int = 0


# Apart, as threads move: of two that count at once one may be lost, which must not be work.
_work = _moves = 0
_alone = False
_thread = threading.local()


def now() -> Pace:
    """Of this process."""
    return Pace(_work, _moves)


def worked() -> None:
    """Counts something that every process does as often, in the same order, right before it may wait for the others in it.

    Who stays behind the others in that, and does not even :func:`move`, hangs.
    """
    global _work
    if _alone:
        move()
    else:
        _work += 1


def move() -> None:
    """Says that this process is at work on something that the others may wait for longer than one may be silent."""
    global _moves
    if not is_aside():
        _moves += 1


def is_aside() -> bool:
    """Whether this thread is none that does the work."""
    return getattr(_thread, "aside", False)


def aside() -> None:
    """Has nothing that this thread does count: it goes on where the work hangs."""
    _thread.aside = True


def is_alone() -> bool:
    """Whether this process does what the others do not."""
    return _alone


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process does what the others do not: nothing of it counts as done by all."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before

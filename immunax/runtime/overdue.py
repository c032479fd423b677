"""Signals that Python does not come to handle: it runs no handler while the main thread is within a library's C++.

A compiler, a program of minutes and a wait for another process are such. The system tells of each signal at once all the same:
its number is written into a pipe. A handler that runs empties it; a thread sees what stays there.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

SECONDS = 2.0
"""That a handler has."""
_MANY = 4096

_pipe: int | None = None
_handled = 0


def tells(numbers: Collection[signal.Signals], act: Callable[[signal.Signals], None]) -> None:
    """Has a function called, in a thread of its own, for each of some signals that is not :func:`handled` in time.

    Args:
      numbers: of the signals.
      act: is given the signal; the first one that is given stays.
    """
    global _pipe
    if _pipe is not None or threading.current_thread() is not threading.main_thread():
        return
    _pipe, writing = os.pipe()
    for end in (_pipe, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(
        target=_looking, args=(_pipe, frozenset(numbers), act), daemon=True, name="immunax_overdue"
    ).start()


def handled() -> None:
    """Says, from a handler, that it runs: all signals that came until now are handled."""
    global _handled
    _handled += 1
    if _pipe is not None:
        _received(_pipe)


def _received(pipe: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(pipe, _MANY)
    return b""


def _looking(pipe: int, numbers: Collection[signal.Signals], act: Callable[[signal.Signals], None]) -> None:
    there = select.poll()
    there.register(pipe, select.POLLIN)
    while there.poll():
        before = _handled
        time.sleep(SECONDS)
        if _handled == before:
            for number in _received(pipe):
                if number in numbers:  # others may handle more of them
                    act(signal.Signals(number))


def _apart() -> None:
    """A process that was forked has no such thread, and what comes to it is nothing to the one that has."""
    global _pipe
    if _pipe is not None:
        _pipe = None
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_apart)

"""Signals that Python does not come to handle: it runs no handler while the main thread is within a library's C++.

A compiler, a program of minutes and a wait for another process are such. The system tells of each signal at once all the same:
its number is written into a pipe, at whose other end a thread gives the main one some time.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

SECONDS = 2.0
"""That a handler has."""

_begun = False


def tells(numbers: Collection[signal.Signals], act: Callable[[signal.Signals], None]) -> None:
    """Has a function called, in a thread of its own, some time behind each of some signals; the first one that is given stays.

    Args:
      numbers: of the signals.
      act: is given the signal, whether its handler has run or not.
    """
    global _begun
    if _begun or threading.current_thread() is not threading.main_thread():
        return
    _begun = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(
        target=_reading, args=(reading, frozenset(numbers), act), daemon=True, name="immunax_overdue"
    ).start()


def _reading(pipe: int, numbers: Collection[signal.Signals], act: Callable[[signal.Signals], None]) -> None:
    while received := os.read(pipe, 1):
        if received[0] in numbers:  # others may handle more of them
            time.sleep(SECONDS)
            act(signal.Signals(received[0]))


def _apart() -> None:
    """A process that was forked has no such thread, and what comes to it is nothing to the one that has."""
    global _begun
    if _begun:
        _begun = False
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_apart)

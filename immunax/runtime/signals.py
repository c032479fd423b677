"""Leave cleanly when the machine is taken away.

A scheduler or a cloud sends SIGTERM some seconds before it takes the machine; a person presses Ctrl-C, which is SIGINT. In the
training loop either raises a flag, which is polled between steps, so that the last of them is saved. Anywhere else it ends
the command there and then, in one line, also where Python runs no handler (:mod:`~immunax.runtime.overdue`): what is finished is
on disk already, as it has to be for a machine that just stops.
The exit status is that of a shell: 143 for SIGTERM, which schedulers requeue on, and 130 for SIGINT.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from immunax.runtime import overdue
from immunax.runtime.exits import EXIT_INTERRUPTED, by_signal, is_stop

_STANDARD_ERROR = 2  # by its number: a signal may come while Python's own stream is being written to
_ASKING = (signal.SIGTERM, signal.SIGINT)
_farewell: Callable[[int], None] | None = None
_handling: list["Handling"] = []
"""Those that are in force, of which the last one gets the signals."""
_IMPORTS = "<frozen importlib._bootstrap>"  # the file of the code that imports


def end(status: int) -> NoReturn:
    """Ends the process, everything being closed: what a signal has cut short on a device may crash the interpreter's own end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def tells(farewell: Callable[[int], None] | None) -> None:
    """Has what ends this process before its time tell so to the other processes of its job.

    Args:
      farewell: is given the exit status; None where there are no others.
    """
    global _farewell
    _farewell = farewell


def leave(status: int) -> NoReturn:
    """Ends this process before its time, and with it the others, where there are any: JAX's own end would wait for them."""
    _tell_others(status)
    end(status)


def _end_here(status: int) -> NoReturn:
    _tell_others(status)
    os._exit(status)


def _tell_others(status: int) -> None:
    if _farewell is not None:
        _farewell(status)


def told(name: str) -> str:
    """What is said of a command that a signal ended."""
    return f"stopped by {name}: what is finished is kept, and the same command goes on from there"


def _overdue(number: signal.Signals) -> None:
    handling = _handling[-1] if _handling else None
    # A library may have set a handler of its own.
    if handling is not None and signal.getsignal(number) == handling.receive:
        handling.overdue(number)


class Handling:
    """What SIGTERM and SIGINT do, for the length of a ``with`` block; the earlier handlers come back at its end.

    Only the main thread may receive signals; entered elsewhere, it changes nothing.

    Attributes:
      signal_name: of the first that was received, else None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self):
        for number in _ASKING:
            try:
                self._before[number] = signal.signal(number, self.receive)
            except ValueError:
                # Not the main thread: whoever owns the main thread decides what a signal does.
                return self
        _handling.append(self)
        overdue.tells(_ASKING, _overdue)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _handling:
            _handling.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Python's handler; see :meth:`act`."""
        overdue.handled()
        first, self.signal_name = self.signal_name is None, self.signal_name or signal.Signals(number).name
        self.act(signal.Signals(number), first, frame)

    def act(self, number: signal.Signals, first: bool, frame: FrameType | None) -> None:
        """What a signal does.

        Args:
          number: of the signal.
          first: whether it is the first one.
          frame: of the code that it came in.
        """
        raise NotImplementedError

    def overdue(self, number: signal.Signals) -> None:
        """What a signal does beside the main thread, which has not come to :meth:`act` for some seconds.

        Args:
          number: of the signal.
        """


class Leaving(Handling):
    """Either signal ends the process in one line, with its exit status. A second SIGINT leaves without closing anything."""

    def __enter__(self):
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._lost
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        sys.unraisablehook = self._hook

    def _lost(self, lost: Any) -> None:
        # JAX has Python code run by the garbage collector: what a signal raises there reaches nobody.
        interrupted = isinstance(lost.exc_value, KeyboardInterrupt)
        status = EXIT_INTERRUPTED if interrupted else getattr(lost.exc_value, "code", None)
        if is_stop(status):
            _end_here(status)
        self._hook(lost)

    def act(self, number: signal.Signals, first: bool, frame: FrameType | None) -> None:
        """See the class."""
        if first:
            _tell(number)
            if _importing(frame):
                _end_here(by_signal(number.name))
            raise SystemExit(by_signal(number.name))
        if number == signal.SIGINT:
            _end_here(EXIT_INTERRUPTED)

    def overdue(self, number: signal.Signals) -> None:
        """See the base class."""
        _tell(number)
        _end_here(by_signal(number.name))


def _tell(number: signal.Signals) -> None:
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{told(number.name)}\n".encode())


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: libraries in C make an error of their own of what is raised meanwhile."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False

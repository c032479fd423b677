"""Leave cleanly when the machine is taken away.

A scheduler or a cloud sends SIGTERM some seconds before it takes the machine; a person presses Ctrl-C, which is SIGINT.
Either raises a flag that the training loop polls between steps, saves, and exits with ``EXIT_PREEMPTED``.
"""

import signal
from types import FrameType
from typing import Any

EXIT_PREEMPTED = 143
"""Exit status of a run that was asked to stop and saved: 128 + SIGTERM, what schedulers requeue on."""


class Preemption:
    """A flag that SIGTERM and SIGINT raise, for the length of a ``with`` block.

    A second SIGINT raises KeyboardInterrupt at once, for whoever does not want to wait for the save. Only the main
    thread may receive signals; entered elsewhere, the flag stays down. The earlier handlers come back at the end.

    Attributes:
      signal_name: ``"SIGTERM"`` or ``"SIGINT"`` once one was received, else None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run has been asked to stop."""
        return self.signal_name is not None

    def __enter__(self) -> "Preemption":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:
                # Not the main thread: whoever owns the main thread decides what a signal does.
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name

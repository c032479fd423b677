"""A training loop that is asked to stop does so between two steps, and saves: of several processes all behind the same one."""

import signal
from types import FrameType

from immunax.runtime import together, watch
from immunax.runtime.escaped import say
from immunax.runtime.exits import by_signal
from immunax.runtime.signals import Handling, told

_AHEAD = 3
"""Steps from which on a request of one process is known in all. Whoever is at step n has read what step n - 2 gave, which all
processes took part in: so every one that comes to step s + 3 does so after the one that was asked at s went on to s + 1, and
that one had told of it before."""


class Preemption(Handling):
    """Either signal raises a flag. A second SIGINT does not wait for the save; a second SIGTERM changes nothing.

    Of several processes one that is asked asks all, and they stop behind the same step. JAX's own service for that takes SIGTERM
    for the whole life of a process, which then no longer ends outside the loop. A signal that comes behind the last step, while
    the block ends, ends the process there as it would outside.
    """

    def __enter__(self):
        self._unasked = False
        self._stop: tuple[int, str] | None = None
        self._request = together.Request()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__()
        if self._unasked and self.signal_name is not None and kind is None:
            say(told(self.signal_name), error=True)
            raise SystemExit(by_signal(self.signal_name))

    def stops(self, step: int) -> bool:
        """Whether the run stops behind a step.

        Args:
          step: that all processes come to, one step at most behind what they have read.
        """
        if self._stop is None and self.signal_name is not None:
            self._stop = step + (_AHEAD if together.processes() > 1 else 0), self.signal_name
            self._request.make(list(self._stop))
        found = self._request.found()
        if found is not None:
            self._stop = found[0], found[1]
        return self._stop is not None and step >= self._stop[0]

    def status(self) -> int | None:
        """The exit status that the run was asked for, by any of its processes, up to the end of its last step; else None."""
        asked = [name for name in together.gathered(self.signal_name) if name is not None]
        self._unasked = not asked
        if not asked:
            return None
        status = by_signal(asked[0])
        watch.agreed(status)
        return status

    def act(self, number: signal.Signals, first: bool, frame: FrameType | None) -> None:
        """See the class."""
        if not first and number == signal.SIGINT:
            raise KeyboardInterrupt

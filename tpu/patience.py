"""How often what fails outside is tried again, and how long is waited in between."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tpu.calls import told
from tpu.mistakes import OutsideError

_OUTAGE_TRIES = 20
"""Of an outage, for each failure that is borne else."""
_OUTAGE_SECONDS = 600.0
"""What the waits of an outage grow to."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Patience:
    """How often what fails is tried again, and how long is waited.

    Attributes:
      poll: seconds between questions to the service.
      tries: failures of one kind in a row that are borne: requests that fail, questions without answer, machines that are
        silent although the slice is there.
      sleep: waits some seconds.
    """

    poll: float
    tries: int
    sleep: Callable[[float], None]

    def answered(self, ask: Callable[[], _Answer], through_outage: bool) -> _Answer:
        """What is answered in the end, to a question that is asked again where it fails.

        Args:
          ask: the question.
          through_outage: bear twenty times as many failures, with waits that grow to ten minutes: hours without a network.

        Raises:
          OutsideError: of the last time that it failed, or the first where that is hopeless.
        """
        for wait in self._outage() if through_outage else [self.poll] * (self.tries - 1):
            try:
                return ask()
            except OutsideError as error:
                if error.hopeless:
                    raise
                told(f"{error} (again in {wait:g} s)")
            self.sleep(wait)
        return ask()

    def _outage(self) -> Iterator[float]:
        wait = self.poll
        for _ in range(_OUTAGE_TRIES * self.tries - 1):
            yield wait
            wait = max(self.poll, min(2 * wait, _OUTAGE_SECONDS))

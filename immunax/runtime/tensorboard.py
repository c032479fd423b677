"""TensorBoard events, written where they are logged.

tensorboardX's own ``SummaryWriter`` writes from a thread and again when the interpreter ends: what the disk refuses there
becomes tracebacks that nobody can catch, and a log that waits for a thread that has died.
"""

import socket
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] # made on import
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

FLUSH_SECONDS = 30.0
"""How long a number may wait before TensorBoard can see it."""


class Events:
    """One file of events.

    Args:
      folder: where to; made when missing.

    Raises:
      OSError: by this and by every method, the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._records = RecordWriter(str(folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"))
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._records.flush()

    def add(self, step: int, name: str, value: float) -> None:
        """Keeps one number.

        Args:
          step: on the axis.
          name: of the curve.
          value: the number.
        """
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what is kept so far."""
        self._records.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left; the file is closed even where that fails."""
        self._records.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

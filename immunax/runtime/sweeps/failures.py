"""The jobs of a sweep: one that fails does not end the others, and the end tells of it.

A launcher may run jobs in other processes or on other machines, which all write to the folder of runs: there they note
what failed, one line a job, or one object in a bucket.
"""

import json
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from immunax.runtime import bucket, mirror, stand_ins, together, watch
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_BUG, EXIT_LOST, is_stop
from immunax.runtime.leader import is_leader


class Failed(NamedTuple):
    """A job that failed.

    Attributes:
      folder: of its run.
      job: what the end of the sweep calls it.
      status: its exit status.
    """

    folder: str
    job: str
    status: int


@dataclass(frozen=True)
class Failures:
    """What failed in one sweep, for the length of a ``with`` block.

    Attributes:
      file: of the notes; made with the first of them.
    """

    file: Path

    @classmethod
    def of(cls, outputs: Path) -> "Failures":
        """Of a sweep that starts now.

        Args:
          outputs: the folder of runs.
        """
        return cls(outputs.absolute() / f".failed-{uuid.uuid4().hex}")

    @contextmanager
    def noted(self, job: Callable[[], tuple[Path, str]]) -> Iterator[None]:
        """A job, whose failure is noted instead of raised: an exit status that is not 0, or a bug, whose traceback is printed.

        A signal that asks for the end is no failure, and a failure that the disk does not let be noted ends the sweep. So does
        that of one of several processes which leaves the others at work: none would do again what another one does.

        Args:
          job: gives the folder of its run, and its name.
        """
        status, cause = 0, None
        try:
            yield
        except together.ApartError:
            raise
        except SystemExit as end:
            if is_stop(end.code):
                raise
            if end.code not in (0, None):
                status, cause = end.code if isinstance(end.code, int) else EXIT_BUG, end
        except Exception as error:
            traceback.print_exc()
            status, cause = EXIT_BUG, error
        together.check_same_end(job()[1], status)
        if cause is not None and not self.note(*job(), status):
            raise cause

    def note(self, folder: Path, job: str, status: int) -> bool:
        """Notes a failure; whether the disk took it.

        Args:
          folder: of the run.
          job: its name.
          status: its exit status.
        """
        line = f"{json.dumps(Failed(mirror.named(folder), job, status))}\n".encode()
        if (address := stand_ins.address(self.file)) is not None:
            try:
                bucket.put_bytes(line, bucket.join(address, uuid.uuid4().hex))
            except UserError:
                return False
            return True
        try:
            # One write, which the system appends whole beside those of other jobs.
            with self.file.open("ab", buffering=0) as out:
                return out.write(line) == len(line)
        except OSError:
            return False

    def found(self) -> list[Failed]:
        """Those noted so far."""
        if (address := stand_ins.address(self.file)) is not None:
            return [Failed(*json.loads(bucket.read(bucket.join(address, name)))) for name in bucket.below(address)]
        if not self.file.exists():
            return []
        # A disk that was full took half of the last note; its own job has ended the sweep.
        whole = self.file.read_text().rpartition("\n")[0]
        return [Failed(*json.loads(line)) for line in whole.splitlines()]

    def __enter__(self) -> "Failures":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Tells in one line which jobs failed; the status of the sweep is 1 where one met a bug, else that of the first.

        One that a launcher starts again comes before those of mistakes.
        """
        found: list[Failed] = []
        with suppress(UserError):  # a bucket that is gone has been told of
            found = self.found()
            if found or self.file.exists():
                mirror.remove(self.file)
        if not found:
            return
        statuses = [each.status for each in found]
        status = next((worst for worst in (EXIT_BUG, EXIT_LOST) if worst in statuses), statuses[0])
        if kind is None:
            watch.agreed(status)
            together.barrier()  # none leaves before all know that they end
        if is_leader():
            say(f"error: {len(found)} of the sweep's jobs failed: {'; '.join(each.job for each in found)}", error=True)
        if kind is None:
            raise SystemExit(status)

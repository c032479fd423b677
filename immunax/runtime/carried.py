"""Checkpoints for a bucket that Orbax cannot write to: of buckets it knows ``gs://`` alone.

They are written on this machine and sent when they are whole, each with its marker last.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from immunax.runtime import bucket, mirror, stand_ins, together
from immunax.runtime.errors import UserError


def is_carried(folder: Path) -> bool:
    """Whether a folder of checkpoints is one that Orbax cannot write to."""
    address = stand_ins.address(folder)
    return address is not None and not address.startswith("gs://")


def check_place(folder: Path) -> None:
    """Refuses checkpoints of several processes, none of which has all of one on its disk, where these would be carried.

    Args:
      folder: of the checkpoints.

    Raises:
      UserError: they would be.
    """
    if is_carried(folder) and together.processes() > 1:
        raise UserError(
            f"{mirror.named(folder)}: checkpoints of several processes go to gs:// or to a disk that all share: choose such "
            "outputs."
        )


class Carried:
    """The folder of one run's checkpoints.

    Args:
      folder: that stands for the address, see :func:`check_place`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._there: set[str] = set()

    def bring(self) -> None:
        """Brings the checkpoints that are whole; what else lies here is removed."""
        address = stand_ins.address(self._folder) or ""
        marked = (name.split("/") for name in bucket.below(address))
        self._there = {parts[0] for parts in marked if parts[1:] == [mirror.WHOLE]}
        for found in self._folder.iterdir() if self._folder.is_dir() else ():
            if found.name not in self._there:
                shutil.rmtree(found)
        for step in self._there:
            mirror.fetch(self._folder / step)

    def send(self, steps: Iterable[int]) -> None:
        """Sends those that are new, and removes in the bucket what is gone here.

        Args:
          steps: that are whole here.
        """
        here = {str(step) for step in steps}
        for step in sorted(here - self._there, key=int):
            mirror.begin(self._folder / step)
            mirror.end(self._folder / step, mirror.send(self._folder / step, self._folder / step))
        for step in self._there - here:
            mirror.remove(self._folder / step)
        self._there = here

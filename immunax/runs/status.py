"""What has become of a run, by what lies in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from immunax.runtime import lease, lock, stand_ins

Status = Literal["done", "running", "failed", "diverged", "stopped"]
ORDER: tuple[Status, ...] = ("done", "running", "failed", "diverged", "stopped")
"""Of a count of them."""


def status(folder: Path, ended: bool, failed: Mapping[str, Any] | None) -> Status:
    """``done`` once it has ended, ``running`` while a process holds its lock, ``failed`` or ``diverged`` where it left a line.

    What was finished stays done when it is started again and refuses to do something else. ``stopped`` is what was killed or
    asked to stop, and goes on by the same command; a disk that knows no locks shows what runs as stopped.

    Args:
      folder: of the run.
      ended: whether its manifest or its certificate says so.
      failed: what it left of a failure.
    """
    if ended:
        return "done"
    address = stand_ins.address(folder)
    if lock.is_held(folder / lock.FILE) if address is None else lease.is_held(address):
        return "running"
    if failed is None:
        return "stopped"
    return "diverged" if failed.get("diverged") is True else "failed"

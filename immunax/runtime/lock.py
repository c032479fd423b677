"""Locks between processes. The system drops those of a process that dies, so that none is ever stale."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = ".lock"
"""A file in a run's folder that whoever works there has locked."""

PARTIAL = ".partial-"
"""In the names of files and folders that are not whole yet, which whoever fills them has locked."""

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_LOOKS, _PAUSE = 5, 0.02
"""How often, and how many seconds apart, a lock is asked for that is not waited for: :func:`is_held` has it for a moment."""


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock for the length of a block.

    Args:
      path: of a file that stands for it; made, with missing folders above, and left there.
      wait: whether to wait for whoever holds it.

    Yields:
      Whether it is held: False where another process has it and ``wait`` is not set. A disk that knows no locks gives every one.

    Raises:
      OSError: the disk refuses the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        ours = take(file.fileno(), wait)
        for _ in range(_LOOKS):
            if not ours:
                time.sleep(_PAUSE)
                ours = take(file.fileno(), wait)
        yield ours


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock, seen without being in the way of whoever wants it.

    Args:
      path: of the file that stands for it; where there is none, nobody does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(descriptor)
    return False


def take(descriptor: int, wait: bool = True) -> bool:
    """Locks what a descriptor has open, a file or a folder, until it is closed.

    Args:
      descriptor: of the system's.
      wait: as for :func:`held`.

    Returns:
      As :func:`held` yields.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def is_known(descriptor: int) -> bool:
    """Whether the disk of a descriptor that this process has locked knows locks: where it does not, others may have it too.

    Args:
      descriptor: from :func:`owned`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def owned(folder: Path) -> int | None:
    """Locks a folder that is still there, for as long as the descriptor is open.

    Args:
      folder: to lock.

    Returns:
      Its descriptor; None where another process holds it or has removed it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if take(descriptor, wait=False) and folder.exists():
        return descriptor
    os.close(descriptor)
    return None

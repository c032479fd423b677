"""Write a file or a folder whole or not at all.

The new content goes to a hidden sibling, which takes the final name by a rename; a reader, or a process killed half
way, never leaves a half-written file under the final name. Who writes holds a lock on the sibling: what a killed process left
is told by it, and removed by the next one that writes beside it. What stands for a place in a bucket is sent there when it is
whole, see :mod:`~immunax.runtime.mirror`.
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from immunax.runtime import lock, mirror
from immunax.runtime.errors import RefusedError, UserError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the disk or the limit of this process allows (ulimit -f)",
}
_LONG = 86400.0
"""Seconds after which what is half written is nobody's, on a disk that knows no locks."""
_NUMBER = re.compile(r"\(os error (\d+)\)")
_DENIED = {errno.EACCES: "permission denied", errno.EPERM: "permission denied", errno.EROFS: "the disk is read-only"}


def is_full(error: OSError) -> bool:
    """Whether a write was refused for want of room, which may be said of no path."""
    return error.errno in _FULL


def disk_error(path: Path | str, error: OSError) -> UserError | None:
    """The message for a write that the disk refused.

    Args:
      path: what was being written.
      error: what the operating system said.

    Returns:
      An error to raise, or None where the cause is no matter of space, of permission or of the place.
    """
    if error.errno in _FULL:
        return RefusedError(f"cannot write {path}: {_FULL[error.errno]}; free some space or choose another folder")
    if error.errno in _DENIED:
        return RefusedError(f"cannot write {path}: {_DENIED[error.errno]}; choose a folder you may write to")
    # Said of anything but the path itself and the folders it lies in, the rest is a bug's.
    return _misplaced(path, error.errno) if is_within(path, error.filename) else None


def _misplaced(path: Path | str, code: int | None) -> UserError | None:
    if code == errno.ENAMETOOLONG:
        return UserError(f"cannot write {str(path)[:80]}…: the name is too long for this disk; choose another")
    file = next((place for place in _upward(path) if place.exists() and not place.is_dir()), None)
    if code in (errno.ENOTDIR, errno.EEXIST) and file is not None:
        return UserError(f"cannot write {path}: {file} is a file; choose another folder")
    if code == errno.ENOENT:
        return UserError(f"cannot write {path}: there can be no such folder; choose another")
    return None


def is_within(path: Any, folder: Any) -> bool:
    """Whether one path is another or lies below it; what is no path, as an ``OSError`` may give, is within nothing.

    Args:
      path: need not exist.
      folder: need not exist.
    """
    if not isinstance(path, (str, Path)) or not isinstance(folder, (str, Path)):
        return False
    return Path(os.path.abspath(folder)) in _upward(path)


def _upward(path: Path | str) -> list[Path]:
    whole = Path(os.path.abspath(path))
    return [whole, *whole.parents]


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the disk refuses within the block, as a :class:`~immunax.runtime.errors.UserError`.

    Args:
      path: what is being written.
    """
    try:
        yield
    except Exception as raised:
        error = _of_the_system(raised)
        if error is None:
            raise
        refusal = disk_error(path, error)
        ours = error.filename is None or is_within(error.filename, path.parent) or is_within(path, error.filename)
        if refusal is None or not (ours or is_full(error)):
            raise
        raise refusal from raised


def _of_the_system(error: Exception) -> OSError | None:
    """What the operating system said: libraries in Rust have a type of their own for it, and its number in their text only."""
    if isinstance(error, OSError):
        return error
    number = _NUMBER.search(str(error))
    return None if number is None else OSError(int(number[1]), str(error))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # On disk before the rename, or a power cut could keep the new name and lose the content.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _place_for(target: Path) -> Iterator[Path]:
    """A new folder beside the target, this process's own, removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent.absolute())
    held = None
    while held is None:  # whoever clears up may meet the folder before it is locked
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}{lock.PARTIAL}", dir=target.parent))
        held = lock.owned(place)
    try:
        yield place
    finally:
        _remove(place)
        os.close(held)


@cache
def _remove_abandoned(parent: Path) -> None:
    """Removes what killed processes left; once a process is enough, as they died before it or will be found by the next."""
    for place in parent.glob(f".*{lock.PARTIAL}*"):
        held = lock.owned(place)
        if held is not None:
            if lock.is_known(held) or _age(place) > _LONG:
                _remove(place)
            os.close(held)


def _age(place: Path) -> float:
    """Seconds since anything was written there."""
    written = [each.stat().st_mtime for each in (place, *place.rglob("*")) if each.exists()]
    return time.time() - max(written, default=0.0)


@contextmanager
def file(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends without an exception.

    Args:
      path: the file to make or to replace; missing parent folders are made.

    Yields:
      The path to write to, on the same disk and of the same name.

    Raises:
      UserError: the disk is full or may not be written to.
    """
    target = Path(path)
    with refusals(target), _place_for(target) as place:
        temp = place / target.name
        temp.touch()
        yield temp
        _sync(temp)
        temp.replace(target)
        mirror.put(target)


@contextmanager
def directory(path: Path | str) -> Iterator[Path]:
    """A temporary folder to fill, which becomes ``path`` when the block ends without an exception.

    Args:
      path: the folder to make or to replace; missing parent folders are made.

    Yields:
      The empty folder to fill, on the same disk; one for a place in a bucket is gone afterwards.

    Raises:
      UserError: the disk is full or may not be written to.
    """
    target = Path(path)
    if mirror.is_mirrored(target):
        with mirror.sending(target) as temp:
            yield temp
        return
    with refusals(target), _place_for(target) as place:
        temp = place / target.name
        temp.mkdir()
        yield temp
        for written in temp.rglob("*"):
            if written.is_file():
                _sync(written)
        _swap(temp, target)


def check_replaceable(directory: Path, marker: str) -> None:
    """Refuses to replace a folder that is not an earlier export.

    Args:
      directory: the folder to be written.
      marker: a file that every earlier export has.

    Raises:
      UserError: the path is a file, or a folder with other content.
    """
    if mirror.is_mirrored(directory):
        names = mirror.names(directory)
        if names and not {marker, mirror.TORN}.intersection(names):
            raise _no_export(directory, marker)
        return
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / marker).is_file()):
        raise _no_export(directory, marker)


def _no_export(directory: Path, marker: str) -> UserError:
    return UserError(
        f"cannot write {directory}: it exists and is no earlier export (no {marker}); choose another folder."
    )


def _swap(temp: Path, target: Path) -> None:
    if not os.path.lexists(target):
        temp.rename(target)
        return
    # No portable call exchanges two folders, so the old one steps aside and comes back should the rename fail.
    aside = temp.with_name(f"{temp.name}.old")
    target.rename(aside)
    try:
        temp.rename(target)
    except OSError:
        aside.rename(target)
        raise

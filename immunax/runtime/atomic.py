"""Write a file or a folder whole or not at all.

The new content goes to a temporary sibling, which takes the final name by a rename; a reader, or a process killed half
way, never leaves a half-written file under the final name.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from immunax.runtime.errors import UserError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_DENIED = {errno.EACCES: "permission denied", errno.EPERM: "permission denied", errno.EROFS: "the disk is read-only"}


def disk_error(path: Path | str, error: OSError) -> UserError | None:
    """The message for a write that the disk refused.

    Args:
      path: what was being written.
      error: what the operating system said.

    Returns:
      An error to raise, or None where the cause is no matter of space, of permission or of the place.
    """
    if error.errno in _FULL:
        return UserError(f"cannot write {path}: {_FULL[error.errno]}; free some space or choose another folder")
    if error.errno in _DENIED:
        return UserError(f"cannot write {path}: {_DENIED[error.errno]}; choose a folder you may write to")
    # Said of anything but the path itself and the folders it lies in, the rest is a bug's.
    return _misplaced(path, error.errno) if is_within(path, error.filename) else None


def _misplaced(path: Path | str, code: int | None) -> UserError | None:
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
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refusal = disk_error(path, error)
        ours = error.filename is None or is_within(error.filename, path.parent) or is_within(path, error.filename)
        if refusal is None or not (ours or error.errno in _FULL):
            raise
        raise refusal from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _open_to_umask(path: Path, mode: int) -> None:
    # tempfile makes private entries; the final one gets the permissions that a plain open() would have given it.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)


def _sync(path: Path) -> None:
    # On disk before the rename, or a power cut could keep the new name and lose the content.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends without an exception.

    Args:
      path: the file to make or to replace; missing parent folders are made.

    Yields:
      The path to write to, in the same folder.

    Raises:
      UserError: the disk is full or may not be written to.
    """
    target = Path(path)
    with _refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.stem}.partial-", suffix=target.suffix, dir=target.parent)
        os.close(descriptor)
        temp = Path(name)
        try:
            yield temp
            _open_to_umask(temp, 0o666)
            _sync(temp)
            temp.replace(target)
        finally:
            _remove(temp)


@contextmanager
def directory(path: Path | str) -> Iterator[Path]:
    """A temporary folder to fill, which becomes ``path`` when the block ends without an exception.

    Args:
      path: the folder to make or to replace; missing parent folders are made.

    Yields:
      The empty folder to fill, a sibling of ``path``.

    Raises:
      UserError: the disk is full or may not be written to.
    """
    target = Path(path)
    with _refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        try:
            yield temp
            _open_to_umask(temp, 0o777)
            for written in temp.rglob("*"):
                if written.is_file():
                    _sync(written)
            _swap(temp, target)
        finally:
            _remove(temp)


def check_replaceable(directory: Path, marker: str) -> None:
    """Refuses to replace a folder that is not an earlier export.

    Args:
      directory: the folder to be written.
      marker: a file that every earlier export has.

    Raises:
      UserError: the path is a file, or a folder with other content.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / marker).is_file()):
        raise UserError(
            f"cannot write {directory}: it exists and is no earlier export (no {marker}); choose another folder."
        )


def _swap(temp: Path, target: Path) -> None:
    if not os.path.lexists(target):
        temp.rename(target)
        return
    # No portable call exchanges two folders, so the old one steps aside and comes back should the rename fail.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent)) / target.name
    target.rename(aside)
    try:
        temp.rename(target)
    except OSError:
        aside.rename(target)
        raise
    finally:
        _remove(aside.parent)

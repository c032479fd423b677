"""Opening a stranger's file: a plain one, or a link to a plain one, of a size that is stated first.

A device never ends, a FIFO never begins, and a folder behind a link is in no digest. So what is opened is looked at after it was
opened, not before, and nothing is read that was not asked for.
"""

import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from immunax.runtime.errors import UserError, shown

TEXT_BYTES = 16 << 20
"""Of the longest file of settings; the index of a model of 700 billion parameters takes half of it."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_plain(path: Path) -> bool:
    """Whether a path leads to a plain file; one that no file can have, leads to none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte in it
        return False


def check_plain(path: Path) -> None:
    """Refuses what is neither a plain file nor a link to one, without opening it.

    Raises:
      UserError: it is something else, or not there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    _check_mode(path, mode)


def open_plain(path: Path) -> BufferedReader:
    """Opens a file for reading.

    Args:
      path: of a plain file, or of a link to one.

    Raises:
      UserError: it is a folder, a device, a FIFO or a socket, is not there, or may not be read.
    """
    try:
        # Without this flag a FIFO is waited for until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except UserError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """A file's bytes.

    Args:
      path: of the file.
      most: bytes that it may have.

    Raises:
      UserError: as :func:`open_plain`, or it is longer.
    """
    with open_plain(path) as file:
        try:
            raw = file.read(most + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if len(raw) > most:
        raise UserError(f"{path}: more than {most} bytes, the most that such a file may have; give the right file.")
    return raw


def read_text(path: Path, most: int = TEXT_BYTES) -> str:
    """A file of UTF-8 text.

    Raises:
      UserError: as :func:`read_bytes`, or it is no UTF-8.
    """
    raw = read_bytes(path, most)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text.") from error


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise UserError(f"{path}: is {kind}; expected a plain file or a link to one, put a copy in its place.")


def _unreadable(path: Path, error: OSError | ValueError) -> UserError:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return UserError(
                f"{path}: a link to {os.readlink(path)}, which is not there; put a copy of the file there."
            )
        return UserError(f"no file {path}; check the path.")
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return UserError(f"{shown(str(path))}: cannot be read ({reason}); check the path and its permissions.")


def below(root: Path) -> Iterator[Path]:
    """Everything below a folder, however deep; a link to a folder is given and not followed.

    Args:
      root: the folder.

    Raises:
      UserError: a folder cannot be listed: what lies there would be passed over in silence.
    """
    waiting = [root]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as found:
                each = list(found)
        except OSError as error:
            raise UserError(f"{place}: cannot be listed ({error.strerror}); change its rights.") from error
        yield from (Path(entry.path) for entry in each)
        waiting += [Path(entry.path) for entry in each if entry.is_dir(follow_symlinks=False)]

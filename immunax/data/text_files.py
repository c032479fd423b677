"""Files of UTF-8 text, gzipped or not, read line by line in bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.unfold import open_unfolded

LONGEST = 1 << 24
"""Characters of the longest line: one that is longer is no row, and a few megabytes of gzip can hold gigabytes of it."""


def open_text(path: Path, newline: str | None = "") -> IO[str]:
    """Opens a plain file of UTF-8 text, with a byte order mark or without."""
    return io.TextIOWrapper(open_unfolded(path), encoding="utf-8-sig", newline=newline)


def lines(path: Path, newline: str | None) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1.

    Args:
      path: the file.
      newline: as for ``open``: what ends a line.

    Raises:
      UserError: the file is no text, or has a line that is too long.
    """
    with unreadable(path), open_text(path, newline) as file:
        yield from enumerate(lines_of(file, path), 1)


def lines_of(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of an open file.

    Args:
      file: of text.
      path: its own, for messages.

    Raises:
      UserError: a line is too long.
    """
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UserError(f"cannot read data file {path}: line {number} has more than {LONGEST} characters")
        yield line


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Tells in one line why a file cannot be read as text."""
    try:
        yield
    except UnicodeDecodeError as error:
        other = " but UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise UserError(f"cannot read data file {path}: it is not UTF-8 text{other}; save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"cannot read data file {path}: the gzip data is broken or cut short") from error
    except OSError as error:
        raise UserError(f"cannot read data file {path}: {error.strerror or type(error).__name__}") from error

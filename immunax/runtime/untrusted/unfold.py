"""Reading what a stranger compressed: bounded by the compressed file, however much that unfolds to."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import IO, BinaryIO, cast

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import open_plain

RATIO, FREE = 100, 64 << 20
"""A file may unfold to as many times its size, or to so many bytes where that is more: text shrinks to a tenth, the same line
over and over to a thousandth."""

_OPEN = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class _Bounded(io.RawIOBase):
    """A stream that is refused when it goes on for too long."""

    def __init__(self, stream: IO[bytes], file: BinaryIO, most: int, path: Path) -> None:
        self._stream, self._file, self._left, self._most, self._path = stream, file, most, most, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        part = self._stream.read(len(buffer))
        self._left -= len(part)
        if self._left < 0:
            raise UserError(
                f"{self._path}: unfolds to more than {self._most} bytes, {RATIO} times its size; unpack it yourself, "
                "and give what comes out."
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._file.close()
        super().close()


def allowed(path: Path) -> int:
    """The bytes that a file may unfold to."""
    return max(FREE, RATIO * path.stat().st_size)


def open_unfolded(path: Path) -> BinaryIO:
    """Opens a file, unfolded where its name says that it is compressed.

    Args:
      path: of a plain file; ``.gz``, ``.tgz``, ``.bz2`` and ``.xz`` are unfolded.

    Raises:
      UserError: it is no plain file; when it is read, it unfolds to too much.
    """
    file = open_plain(path)
    opener = _OPEN.get(path.suffix.lower())
    if opener is None:
        return file
    most = allowed(path)
    stream = cast(IO[bytes], opener(file, "rb"))
    return cast(BinaryIO, io.BufferedReader(_Bounded(stream, file, most, path), 1 << 16))

"""What a GGUF file says of itself, each claim held against the file's length before anything is made of it.

The file is a count of tensors and of pairs, the pairs, a line about each tensor, and the data. Time and memory are linear in the
bytes that are there, whatever the counts in them claim; data stay on disk.
"""

import itertools
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from immunax.runtime.errors import UserError, shown
from immunax.runtime.untrusted.files import open_plain

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_MOST = 64 << 20
"""Bytes before the data: a vocabulary of 256,000 tokens with its merges takes 16 million."""
_MOST_DIMENSIONS = 4
_ALIGNMENT = 32
_SCALARS = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_STRING, _ARRAY = 8, 9
_PLAIN = {
    GGMLQuantizationType.F32: np.dtype("<f4"),
    GGMLQuantizationType.F16: np.dtype("<f2"),
    GGMLQuantizationType.F64: np.dtype("<f8"),
    GGMLQuantizationType.I8: np.dtype("<i1"),
    GGMLQuantizationType.I16: np.dtype("<i2"),
    GGMLQuantizationType.I32: np.dtype("<i4"),
    GGMLQuantizationType.I64: np.dtype("<i8"),
}
"""Types whose elements lie one after the other; all others are blocks."""


class Tensor(NamedTuple):
    """One tensor.

    Attributes:
      kind: how its values are stored.
      shape: of its values, the slowest axis first.
      data: a view of the file, of its values or, where they are in blocks, of bytes ``[..., bytes of a row]``.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    data: np.ndarray


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file's header.

    Args:
      path: of the file.

    Returns:
      Its pairs, as plain values, and its tensors by name.

    Raises:
      UserError: it is no GGUF file, is damaged or cut short, or claims what it does not have.
    """
    with open_plain(path) as file:
        raw = file.read(4)
    if raw != _MAGIC:
        raise _broken(path, "it does not begin with GGUF")
    try:
        return _Reader(np.memmap(path, np.uint8, "r")).header()
    except _BrokenError as error:
        raise _broken(path, str(error)) from error
    except OSError as error:
        raise _broken(path, error.strerror or type(error).__name__) from error


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a readable GGUF file ({reason}); copy or download it again.")


class _BrokenError(Exception):
    """What a file claims and does not have."""


class _Reader:
    """A place in a file's bytes, which moves on with every value that is read."""

    def __init__(self, file: np.ndarray) -> None:
        self._file, self._at = file, len(_MAGIC)
        self._head = memoryview(file[:_MOST])  # pyright: ignore[reportArgumentType] -- an array is a buffer

    def header(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        version = self._number("<I")
        if version not in _VERSIONS:
            other = "; it is of the other byte order" if version & 0xFFFF == 0 else ""
            raise _BrokenError(f"version {version}, expected 2 or 3{other}")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        # A pair takes 13 bytes at least and a tensor 24, so that such counts cannot be met.
        self._check_room(13 * pairs + 24 * tensors)
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name = self._text()
            if name in metadata:
                raise _BrokenError(f"the key {shown(name)} is there twice")
            metadata[name] = self._value(self._number("<I"))
        entries = [self._entry() for _ in range(tensors)]
        return metadata, self._tensors(metadata, entries)

    def _check_room(self, size: int) -> None:
        if size > len(self._head) - self._at:
            raise _BrokenError(f"it claims {size} more bytes than it has before byte {len(self._head)}")

    def _take(self, size: int) -> memoryview:
        self._check_room(size)
        self._at += size
        return self._head[self._at - size : self._at]

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self) -> str:
        raw = self._take(self._number("<Q"))
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise _BrokenError("a text in it is not UTF-8") from error

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(self._number("<I"), self._number("<Q"))
        return self._numbers(kind, 1)[0]

    def _array(self, kind: int, count: int) -> list:
        if kind != _STRING:
            return self._numbers(kind, count)
        self._check_room(8 * count)
        return [self._text() for _ in range(count)]

    def _numbers(self, kind: int, count: int) -> list:
        if kind not in _SCALARS:
            raise _BrokenError(f"a value of kind {kind}")
        return np.frombuffer(self._take(_SCALARS[kind].itemsize * count), _SCALARS[kind]).tolist()

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, kind and offset of a tensor."""
        name, dimensions = self._text(), self._number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise _BrokenError(f"tensor {shown(name)} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        if not all(shape):
            raise _BrokenError(f"tensor {shown(name)} has no values")
        return name, shape, self._number("<I"), self._number("<Q")

    def _tensors(self, metadata: Mapping[str, Any], entries: list[tuple]) -> dict[str, Tensor]:
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _BrokenError(f"general.alignment is {shown(alignment)}, expected a power of two")
        start = -(-self._at // alignment) * alignment
        found: dict[str, Tensor] = {}
        places = []
        for name, shape, kind, offset in entries:
            if name in found:
                raise _BrokenError(f"tensor {shown(name)} is there twice")
            size, found[name] = self._tensor(name, shape, kind, start + offset)
            places.append((start + offset, size, name))
        # Many tensors on the same bytes would make any size of so many bytes.
        for (at, size, name), (after, _, other) in itertools.pairwise(sorted(places)):
            if after < at + size:
                raise _BrokenError(f"tensors {shown(name)} and {shown(other)} lie on the same bytes")
        return found

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> tuple[int, Tensor]:
        try:
            form = GGMLQuantizationType(kind)
        except ValueError:
            raise _BrokenError(f"tensor {shown(name)} is of kind {kind}") from None
        block, width = GGML_QUANT_SIZES[form]
        row = shape[-1] if shape else 1
        if row % block:
            raise _BrokenError(f"tensor {shown(name)} has rows of {row} values, expected blocks of {block}")
        size = math.prod(shape) // block * width
        if start + size > len(self._file):
            raise _BrokenError(f"tensor {shown(name)} ends at byte {start + size} of {len(self._file)}")
        raw = self._file[start : start + size]
        if form in _PLAIN:
            return size, Tensor(form, shape, raw.view(_PLAIN[form]).reshape(shape))
        return size, Tensor(form, shape, raw.reshape(*shape[:-1], row // block * width))

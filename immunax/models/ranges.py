"""A tensor of a file in a bucket: of its bytes those are read that are asked for, when they are."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from immunax.models.finite import finite
from immunax.runtime import bucket

_BLOCK_BYTES = 1 << 26
"""Rows that are read at a time, where a part of each is wanted."""
_KEPT_BYTES = 1 << 27
"""Of a tensor whose rows are kept until it is dropped: the devices of a host may each want other columns of them."""


@dataclass(frozen=True)
class Ranged:
    """What stands in for a view of a file, with as much of NumPy's as :func:`~immunax.runtime.placement.fill` asks for.

    Attributes:
      address: of the file.
      name: of the tensor.
      dtype: of the file.
      start: its first byte.
      stored: its shape in the file.
      checked: whether what is read has to be finite.
      transposed: whether the view is transposed.
      stacked: whether the view has an axis of length 1 before the others.
    """

    address: str
    name: str
    dtype: np.dtype
    start: int
    stored: tuple[int, ...]
    checked: bool = False
    transposed: bool = False
    stacked: bool = False
    _rows: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the view."""
        turned = self.stored[::-1] if self.transposed else self.stored
        return (1, *turned) if self.stacked else turned

    @property
    def T(self) -> "Ranged":  # noqa: N802 -- as NumPy calls it
        """The view, transposed."""
        return replace(self, transposed=not self.transposed)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if index is None:
            return replace(self, stacked=True)
        index = index if isinstance(index, tuple) else (index,)
        whole = (*index, *(slice(None),) * (len(self.shape) - len(index)))
        inner = whole[1:] if self.stacked else whole
        found = self._read(inner[::-1] if self.transposed else inner)
        found = found.T if self.transposed else found
        return found[None][whole[0]] if self.stacked else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[tuple(slice(None) for _ in self.shape)], dtype)

    def _read(self, index: tuple[slice, ...]) -> np.ndarray:
        first, last, _ = index[0].indices(self.stored[0])
        rest = index[1:]
        width = math.prod(self.stored[1:]) * self.dtype.itemsize
        if all(each.indices(size)[:2] == (0, size) for each, size in zip(rest, self.stored[1:], strict=True)):
            return self._block(first, last, width)
        rows = max(1, _BLOCK_BYTES // max(1, width))
        parts = [
            self._block(row, min(row + rows, last), width)[(slice(None), *rest)] for row in range(first, last, rows)
        ]
        return np.concatenate([np.ascontiguousarray(part) for part in parts])

    def _block(self, first: int, last: int, width: int) -> np.ndarray:
        if (first, last) in self._rows:
            return self._rows[first, last]
        raw = bucket.read(self.address, self.start + first * width, self.start + last * width)
        block = np.frombuffer(raw, self.dtype).reshape(last - first, *self.stored[1:])
        if self.checked:
            finite(block, self.name, self.address)
        if math.prod(self.stored) * self.dtype.itemsize <= _KEPT_BYTES:
            self._rows[first, last] = block
        return block

"""Arrays that are filled piece by piece where they are to lie: read from disk, they are never whole on the host twice."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from immunax.runtime import pace
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import partition_spec

_ALIGNMENT = 64
"""Bytes: XLA's CPU backend takes a host buffer that begins at a multiple of it as it is, and copies any other."""

Bounds = tuple[tuple[int, int], ...]
"""The part of an array that a device holds: start and end on each axis."""


def fill(
    path: Sequence[str],
    shape: Sequence[int],
    dtype: Any,
    pieces: Iterable[tuple[int, np.ndarray]],
    devices: Mesh | None = None,
) -> jax.Array:
    """One parameter, from pieces along its first axis.

    On the host there are, beside a piece, the parts that this process's devices hold; on a CPU these become the array.

    Args:
      path: its names from the root, by which the mesh's table knows how it is split.
      shape, dtype: its own; pieces are rounded to the dtype.
      pieces: where on the first axis each begins, and its values ``[n, ...]``; views of a file are read where they are split.
      devices: where to; None is the default device.

    Raises:
      UserError: a value is too large for the dtype: it would be infinite.
    """
    sharding = None if devices is None else NamedSharding(devices, partition_spec(path, shape, devices))
    held = _held(tuple(shape), sharding)
    parts = {bounds: _aligned([end - start for start, end in bounds], dtype) for bounds in held.values()}
    for first, values in pieces:
        pace.move()
        for bounds, part in parts.items():
            if not _copy(part, bounds, first, values):
                raise UserError(
                    f"tensor {'.'.join(map(str, path))!r} has a value beyond what {part.dtype.name} holds, and would be "
                    "infinite; give compute.dtype=float32, or copy or download the model again."
                )
        del values  # or it would stay while the next one is read
    if sharding is None:
        [whole] = parts.values()
        return jax.block_until_ready(jax.device_put(whole))
    array = jax.make_array_from_callback(tuple(shape), sharding, lambda index: parts[_bounds(index, shape)])
    return jax.block_until_ready(array)


def _held(shape: tuple[int, ...], sharding: NamedSharding | None) -> Mapping[Any, Bounds]:
    if sharding is None:
        return {None: tuple((0, size) for size in shape)}
    return {device: _bounds(at, shape) for device, at in sharding.addressable_devices_indices_map(shape).items()}


def _bounds(index: Any, shape: Sequence[int]) -> Bounds:
    return tuple(each.indices(size)[:2] for each, size in zip(index, shape, strict=True))


def _aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _copy(part: np.ndarray, bounds: Bounds, first: int, values: np.ndarray) -> bool:
    """Copies what of some values belongs into a part, and says whether the part's dtype holds all of it."""
    (start, end), *rest = bounds
    low, high = max(start, first), min(end, first + len(values))
    if low < high:
        window = tuple(slice(*each) for each in rest)
        taken, given = part[low - start : high - start], values[(slice(low - first, high - first), *window)]
        with np.errstate(over="ignore"):
            taken[:] = given
        # Only what holds less could have made a number infinite.
        return not _narrower(part.dtype, values.dtype) or bool(np.isfinite(taken).all())
    return True


def _narrower(one: Any, other: Any) -> bool:
    floats = all(jnp.issubdtype(each, jnp.floating) for each in (one, other))
    return floats and float(jnp.finfo(one).max) < float(jnp.finfo(other).max)

"""Meshes over several slices of TPUs: links of chips within a slice, the data centre's network between slices.

The network is some fifty times slower, so the axes that speak least take the slices: ``attack`` first, whose members never
speak, then ``data`` and ``fsdp``. ``tensor``, which speaks within every layer, stays within a slice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from immunax.runtime.errors import UserError

SPANNING = ("attack", "data", "fsdp")
"""The axes that may span slices, in the order in which they take them."""


def by_slice(devices: Sequence[Any], given: int | None) -> list[list[Any]]:
    """The devices of each slice.

    TPUs say which slice they are of. Other devices are one slice; where more are asked for, processes
    stand for them, or equal parts of one process's devices.

    Args:
      devices: of all slices.
      given: how many slices there should be; None for as many as are found.

    Raises:
      UserError: there are others.
    """
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise UserError(f"mesh.slices={given!r}: expected a positive whole number, or null for as many as are found")
    # GPUs call a host, or what NVLink joins, a slice: a mesh may span these as it likes.
    known = all(hasattr(device, "slice_index") and device.platform != "gpu" for device in devices)
    numbers = [device.slice_index for device in devices] if known else _standing_in(devices, given or 1)
    found: dict[int, list[Any]] = {number: [] for number in sorted(set(numbers))}
    for number, device in zip(numbers, devices, strict=True):
        found[number].append(device)
    if given is not None and given != len(found):
        raise UserError(
            f"mesh.slices={given}: this run has {len(found)}; set mesh.slices={len(found)}, or null to take what is found"
        )
    return list(found.values())


def _standing_in(devices: Sequence[Any], slices: int) -> list[int]:
    processes = sorted({device.process_index for device in devices})
    if len(processes) > 1 and len(processes) % slices == 0:
        return [processes.index(device.process_index) * slices // len(processes) for device in devices]
    if len(processes) > 1 or len(devices) % slices:
        raise UserError(
            f"mesh.slices={slices}: {len(devices)} devices of {len(processes)} process{'es'[: 2 * (len(processes) > 1)]} do not "
            "make as many equal parts; leave it null"
        )
    return [place * slices // len(devices) for place in range(len(devices))]


def spanned(sizes: Mapping[str, int], slices: int) -> dict[str, int]:
    """How many slices each axis spans.

    Args:
      sizes: of the axes.
      slices: how many there are.

    Raises:
      UserError: the axes that may span slices do not divide over them.
    """
    found, left = {}, slices
    for axis, size in sizes.items():
        found[axis] = math.gcd(size, left) if axis in SPANNING else 1
        left //= found[axis]
    if left > 1:
        shown = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"mesh {shown} does not lie on {slices} slices: attack, data and fsdp span them, and none has the factor {left}; "
            f"make one of them a multiple of {left} (tensor stays within a slice)"
        )
    return found


def layout(groups: Sequence[Sequence[Any]], sizes: Mapping[str, int]) -> np.ndarray:
    """Devices in the shape of a mesh, slices outside and their chips inside, each axis.

    Within a slice the last axis lies on the nearest neighbours, and an axis of the torus may be shared by two of the mesh.
    ``mesh_utils.create_hybrid_device_mesh`` does the same for slices and processes that the devices name; the parts of one
    process's devices, which stand for slices in tests, it does not know.

    Args:
      groups: equally many devices of each slice.
      sizes: of the axes.

    Raises:
      UserError: the slices are unequal, or the mesh does not lie on them.
    """
    counts = {len(group) for group in groups}
    if len(counts) > 1:
        raise UserError(f"the slices have {sorted(counts)} devices: expected equally many in each")
    over = spanned(sizes, len(groups))
    inside = tuple(size // over[axis] for axis, size in sizes.items())
    parts = np.stack([mesh_utils.create_device_mesh(inside, group, allow_split_physical_axes=True) for group in groups])
    parts = parts.reshape(*over.values(), *inside)
    axes = len(sizes)
    return parts.transpose([place for axis in range(axes) for place in (axis, axes + axis)]).reshape(*sizes.values())


def slice_sizes(mesh: Mesh) -> dict[str, int]:
    """How many slices each axis of a mesh spans, as its devices say."""
    numbers = np.vectorize(lambda device: getattr(device, "slice_index", 0))(mesh.devices)
    return {axis: len(np.unique(_line(numbers, place))) for place, axis in enumerate(mesh.axis_names)}


def _line(numbers: np.ndarray, axis: int) -> np.ndarray:
    """The entries along one axis, at the start of all others."""
    return np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)[:, 0]

"""A kernel on a mesh: the compiler cannot split what it cannot look into, so each device is given its rows and its heads."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

_ROWS, _HEADS = ("data", "fsdp"), ("tensor",)
_HEADS_AXIS = {"q": 2, "k": 2, "n": 1}


def by_device(kernel: Callable[..., Any], takes: str, gives: str, inputs: Sequence[jax.Array]) -> Any:
    """Calls a kernel; under a mesh (``jax.set_mesh``), on each device's part.

    Rows are split over ``data`` and ``fsdp``, heads over ``tensor``. Where the number of either does not divide, every device
    computes all of them.

    Args:
      kernel: of the inputs.
      takes: a letter for each: ``q`` for ``[B, T, H, D]``, ``k`` for ``[B, T, K, D]``, ``n`` for ``[B', H, T]``, B' a multiple
        of B, ``s`` for ``[B, ...]``.
      gives: the same of what it gives.
      inputs: of the kernel.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto}
    if math.prod(mesh.shape[name] for name in free) == 1:
        return kernel(*inputs)

    def dividing(names: tuple[str, ...], *sizes: int) -> tuple[str, ...] | None:
        names = tuple(name for name in names if name in free)
        ways = math.prod(mesh.shape[name] for name in names)
        return None if any(size % ways for size in sizes) else names

    counts = [each.shape[_HEADS_AXIS[letter]] for each, letter in zip(inputs, takes, strict=True) if letter != "s"]
    rows, heads = dividing(_ROWS, inputs[0].shape[0]), dividing(_HEADS, *counts)
    wide = PartitionSpec(rows, None, heads, None)
    specs = {"q": wide, "k": wide, "n": PartitionSpec(rows, heads, None), "s": PartitionSpec(rows)}
    split = jax.shard_map(
        kernel,
        in_specs=tuple(specs[letter] for letter in takes),
        out_specs=tuple(specs[letter] for letter in gives),
        axis_names=free,
        check_vma=False,  # a kernel says of none of its results over which devices they differ
    )
    return split(*inputs)

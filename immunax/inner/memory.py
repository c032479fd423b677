"""How many members run together on a device: as many as it can use, if the compiler counts that they fit its memory."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from immunax.inner.population import Member, map_members, plan
from immunax.runtime.errors import UserError
from immunax.runtime.together import gathered

SHARE = 0.8
"""The most of the free memory that a program may be given: the rest is for the allocator's gaps and for other programs."""


def compile_members(
    member: Member,
    own: Any,
    shared: Any,
    *,
    mesh: Mesh | None = None,
    available: int | None = None,
    at_once: int | None = None,
) -> Callable[[Any, Any], Any]:
    """Compiles a population for A members, in turns of as many as each device can use and has the memory for.

    Args:
      member: as in :func:`~immunax.inner.population.map_members`; equal ones share a program.
      own: what is each member's, with leading axis A; arrays, or their shapes.
      shared: what all read; arrays, or their shapes.
      mesh: as in :func:`~immunax.inner.population.map_members`.
      available: bytes of each device that the program may use; ``SHARE`` of what is free by default.
      at_once: the most members of a turn; :func:`most_at_once` by default.

    Returns:
      ``program(own, shared)`` for inputs of those shapes, which gives the results with leading axis A.

    Raises:
      UserError: not even one member at a time fits.
    """
    members = jax.tree.leaves(own)[0].shape[0]
    each = plan(members, 1 if mesh is None else mesh.shape["attack"]).chunk
    at_once = most_at_once(mesh) if at_once is None else at_once

    def program(chunk: int) -> Any:
        return compiled(_together, own, shared, member=member, mesh=mesh, chunk=chunk)

    most = each if at_once is None else min(at_once, each)
    needed = most_that_fit(lambda chunk: needed_bytes(lambda: program(chunk), (own, shared)), most, available)
    return program(needed)


def _together(own: Any, shared: Any, *, member: Member, mesh: Mesh | None, chunk: int | None) -> Any:
    return map_members(member, own, shared, mesh=mesh, chunk=chunk)


def most_at_once(mesh: Mesh | None = None) -> int | None:
    """Members that a device is faster with together than in turns; None for any number.

    One member keeps a CPU's matrix units busy, and what others hold is lost to its caches (``benchmarks/population.py``).
    Where weights are split over devices, members together gather them once.
    """
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    whole = mesh is None or mesh.size == mesh.shape["attack"]
    return 1 if device.platform == "cpu" and whole else None


def most_that_fit(needed: Callable[[int], int | None], most: int, available: int | None = None) -> int:
    """How many members of a turn fit, by a straight line through turns of one and of the most, checked at its end.

    Args:
      needed: bytes of each device that a turn of so many takes; None where the compiler refuses it.
      most: how many are wanted.
      available: bytes of each device that may be used; ``SHARE`` of what is free by default.

    Raises:
      UserError: not even one fits.
    """
    available, all_of_them = usable_bytes() if available is None else available, needed(most)
    while all_of_them is None and most > 1:
        most = (most + 1) // 2
        all_of_them = needed(most)
    if all_of_them is not None and all_of_them <= available:
        return most
    one = all_of_them if most == 1 else needed(1)
    if one is None or all_of_them is None or one > available:
        shown = "more" if one is None else f"about {one / 2**20:.0f} MiB"
        raise UserError(
            f"a population needs {shown} of each device with one member at a time, and "
            f"{available / 2**20:.0f} MiB are free: attack with fewer members, with adapters (tuning.lora), or a smaller model."
        )
    found = 1 + (available - one) * (most - 1) // max(1, all_of_them - one)
    there = needed(found) if found > 1 else None
    return 1 if there is None or there > available else found


def peak_bytes(program: Any) -> int:
    """What a compiled program needs on each device: inputs, results and temporaries, in bytes."""
    analysis = program.memory_analysis()
    return analysis.argument_size_in_bytes + _made_bytes(analysis)


def needed_bytes(program: Callable[[], Any], inputs: Any) -> int | None:
    """What a program needs on each device beside those of its inputs that lie there already.

    Args:
      program: compiles it.
      inputs: of it.

    Returns:
      Bytes; None where the compiler finds that it does not fit, as that of an accelerator does.
    """
    try:
        compiled = program()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    arrays = [leaf for leaf in jax.tree.leaves(inputs) if isinstance(leaf, jax.Array)]
    there = sum(leaf.addressable_shards[0].data.nbytes for leaf in arrays)
    analysis = compiled.memory_analysis()
    return max(0, analysis.argument_size_in_bytes - there) + _made_bytes(analysis)


def _made_bytes(analysis: Any) -> int:
    return analysis.output_size_in_bytes - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes


def free_bytes() -> int:
    """Free bytes of one device: of an accelerator's memory, or this device's share of the host's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    with open("/proc/meminfo") as lines:
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return kibibytes * 1024 // jax.local_device_count()


def usable_bytes() -> int:
    """``SHARE`` of the least :func:`free_bytes` of any process: all have to choose the same program."""
    return int(SHARE * min(gathered(free_bytes())))


def compiled(function: Callable[..., Any], *inputs: Any, **static: Any) -> Any:
    """A function compiled ahead of time, from shapes alone; kept for equal functions, shapes and static arguments.

    Args:
      function: hashable.
      inputs: pytrees of arrays, or of their shapes; how arrays lie on a mesh counts.
      static: what else the function takes, by name; hashable.
    """
    leaves, structure = jax.tree.flatten(_abstract(inputs))
    return _compiled(function, tuple(static.items()), tuple(leaves), structure)


@lru_cache(maxsize=32)
def _compiled(function: Callable[..., Any], static: Any, leaves: Any, structure: Any) -> Any:
    # A new jit each time: the old one would keep every program for as long as its function lives.
    called = jax.jit(lambda *inputs: function(*inputs, **dict(static)))
    return called.lower(*jax.tree.unflatten(structure, leaves)).compile()


def _abstract(tree: Any) -> Any:
    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None)
        kept = sharding if isinstance(sharding, NamedSharding) else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=kept)

    return jax.tree.map(one, jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), tree))

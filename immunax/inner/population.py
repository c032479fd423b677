"""Many runs as one program: mapped on a device, sharded over the mesh axis ``attack``, chunked where memory is short.

Everything here is a map over a leading axis of A members. ``vmap`` runs them together on a device; over a mesh,
``shard_map`` gives each device along ``attack`` its part, and leaves the axes ``data``, ``fsdp`` and ``tensor`` to the
compiler; a chunk size runs each part in turns. No member reads another, so none can change another by a bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from immunax.runtime.errors import UserError

PARTITIONER_ABORTS = jax.__version_info__ >= (0, 12)
"""Whether XLA cannot compile members over weights that both ``fsdp`` and ``tensor`` split."""

Member = Callable[[Any, Any], Any]
"""``member(own, shared) -> result``: one member as a pure function of what is its own and what all share."""


class Plan(NamedTuple):
    """How A members lie on the devices.

    Attributes:
      ways: parts, one a device along ``attack``.
      turns: chunks of a part, run one after the other.
      chunk: members that run together on a device.
    """

    ways: int
    turns: int
    chunk: int


def plan(members: int, ways: int = 1, chunk: int | None = None) -> Plan:
    """Members over devices and turns, with as few idle places as equal chunks of at most ``chunk`` allow.

    Args:
      members: A.
      ways: devices along ``attack``.
      chunk: the most members at once on a device; None for all.
    """
    part = -(-members // ways)
    turns = 1 if chunk is None else -(-part // max(1, chunk))
    return Plan(ways, turns, -(-part // turns))


def map_members(member: Member, own: Any, shared: Any, *, mesh: Mesh | None = None, chunk: int | None = None) -> Any:
    """Runs every member; to be called under ``jax.jit``.

    Args:
      member: ``member(own, shared) -> result``.
      own: a pytree with leading axis A.
      shared: a pytree that every member reads whole, such as a model's weights.
      mesh: where its axis ``attack`` is larger than 1, members are sharded over it. A that it does not divide is padded
        with copies of the last member, which are dropped from the result.
      chunk: the most members at once on a device; None for all. See :func:`immunax.inner.memory.compile_members`.

    Returns:
      The results, with leading axis A.

    Raises:
      UserError: the mesh has axes ``attack``, ``fsdp`` and ``tensor`` at once, which jax 0.12 cannot compile.
    """
    count = jax.tree.leaves(own)[0].shape[0]
    ways, turns, size = plan(count, 1 if mesh is None else mesh.shape["attack"], chunk)

    def together(own: Any, shared: Any) -> Any:
        # One alone is not mapped: a loop whose end is its own would carry everything through a choice at every turn.
        if size > 1:
            return jax.vmap(member, in_axes=(0, None))(own, shared)
        return jax.tree.map(lambda leaf: leaf[None], member(jax.tree.map(lambda leaf: leaf[0], own), shared))

    def part(own: Any, shared: Any) -> Any:
        if turns == 1:
            return together(own, shared)
        chunks = jax.tree.map(lambda leaf: leaf.reshape(turns, size, *leaf.shape[1:]), own)
        results = jax.lax.map(lambda chunk: together(chunk, shared), chunks)
        return jax.tree.map(lambda leaf: leaf.reshape(turns * size, *leaf.shape[2:]), results)

    if mesh is not None and ways > 1:
        _check(mesh)
        split, whole = PartitionSpec("attack"), PartitionSpec()
        # Each device's scans start from values that are the same on all and end in ones that differ, which the check
        # of varying axes refuses.
        part = jax.shard_map(
            part, mesh=mesh, in_specs=(split, whole), out_specs=split, axis_names={"attack"}, check_vma=False
        )
    results = part(_padded(own, count, ways * turns * size), shared)
    return jax.tree.map(lambda leaf: leaf[:count], results)


def _check(mesh: Mesh) -> None:
    # XLA's partitioner ends the process there ("spmd_partitioner_util.cc: Check failed"): a lookup in a table that is split both
    # ways, within a part of the devices. Seen with jax 0.12.0.1, not with 0.10.2.
    if PARTITIONER_ABORTS and min(mesh.shape["fsdp"], mesh.shape["tensor"]) > 1:
        raise UserError(
            f"mesh.attack={mesh.shape['attack']} mesh.fsdp={mesh.shape['fsdp']} mesh.tensor={mesh.shape['tensor']}: jax "
            f"{jax.__version__} cannot compile members over weights that are split both ways; set mesh.fsdp=1 or mesh.tensor=1."
        )


def _padded(own: Any, count: int, places: int) -> Any:
    if places == count:
        return own
    index = jnp.minimum(jnp.arange(places), count - 1)
    return jax.tree.map(lambda leaf: leaf[index], own)

"""Many runs as one program: mapped on a device, sharded over the mesh axis ``attack``, chunked where memory is short.

Everything here is a map over a leading axis of A members. ``vmap`` runs them together on a device; a chunk size runs them in
turns. Over a mesh whose only axis is ``attack``, ``shard_map`` gives each device its part. Where weights or examples are split
too, one ``vmap`` over all parts, its axis laid on ``attack``, leaves the rest to the compiler: what a member asks for within,
such as rows over ``fsdp``, is then heard, and a layer's weights are gathered when it is computed. No member reads another, so
none can change another by a bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from immunax.runtime.mesh import split_parameters

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
    """
    count = jax.tree.leaves(own)[0].shape[0]
    ways, turns, size = plan(count, 1 if mesh is None else mesh.shape["attack"], chunk)

    def part(own: Any, shared: Any) -> Any:
        return _in_turns(partial(_together, member, shared, size, None), own, 1, turns)

    own = _padded(own, count, ways * turns * size)
    if mesh is None or mesh.size == 1:
        results = part(own, shared)
    elif mesh.size == ways:
        results = _apart(part, mesh)(own, shared)
    else:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            own = split_parameters(own, stacked=True)
            results = _in_turns(partial(_together, member, shared, ways * size, "attack"), own, ways, turns)
            results = split_parameters(results, stacked=True)
    return jax.tree.map(lambda leaf: leaf[:count], results)


def _together(member: Member, shared: Any, count: int, axis: str | None, own: Any) -> Any:
    # One alone is not mapped: a loop whose end is its own would carry everything through a choice at every turn.
    if count > 1:
        return jax.vmap(member, in_axes=(0, None), spmd_axis_name=axis)(own, shared)
    return jax.tree.map(lambda leaf: leaf[None], member(jax.tree.map(lambda leaf: leaf[0], own), shared))


def _apart(part: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    split, whole = PartitionSpec("attack"), PartitionSpec()
    # Each device's scans start from values that are the same on all and end in ones that differ, which the check of
    # varying axes refuses.
    return jax.shard_map(part, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)


def _in_turns(turn: Callable[[Any], Any], own: Any, ways: int, turns: int) -> Any:
    """``turn`` of as many members of each part as a turn takes, turn by turn."""
    if turns == 1:
        return turn(own)

    def turned(leaf: jax.Array) -> jax.Array:
        parts = leaf.reshape(ways, turns, -1, *leaf.shape[1:])
        return jnp.moveaxis(parts, 1, 0).reshape(turns, -1, *leaf.shape[1:])

    def back(leaf: jax.Array) -> jax.Array:
        parts = leaf.reshape(turns, ways, -1, *leaf.shape[2:])
        return jnp.moveaxis(parts, 0, 1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(back, jax.lax.map(turn, jax.tree.map(turned, own)))


def _padded(own: Any, count: int, places: int) -> Any:
    if places == count:
        return own
    index = jnp.minimum(jnp.arange(places), count - 1)
    return jax.tree.map(lambda leaf: leaf[index], own)

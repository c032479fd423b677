"""The device mesh and the one table that says how each parameter lies on it.

Axes are always named ``attack`` (members of a population), ``data`` (examples), ``fsdp`` (examples, and parameters
gathered when used) and ``tensor`` (parameters split within a layer, Megatron style: column-parallel into a block,
row-parallel out of it). An unused axis has size 1, so one program serves a CPU and a pod.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from immunax.runtime.errors import UserError
from immunax.runtime.projections import READERS, WRITERS
from immunax.runtime.slices import by_slice, layout

AXES = ("attack", "data", "fsdp", "tensor")

# Trailing axes of each parameter, by the end of its path. Leading axes (layers, population) are not named here.
# READERS are column-parallel: their output axis is split; WRITERS are row-parallel: their input axis is.
_RULES: dict[tuple[str, str], tuple[str | None, ...]] = {
    ("embed_tokens", "embedding"): ("tensor", "fsdp"),
    ("lm_head", "kernel"): ("fsdp", "tensor"),
    **{(name, "kernel"): ("fsdp", "tensor") for name in READERS},
    **{(name, "bias"): ("tensor",) for name in READERS},
    **{(name, "a"): ("fsdp", None) for name in READERS},
    **{(name, "b"): (None, "tensor") for name in READERS},
    **{(name, "kernel"): ("tensor", "fsdp") for name in WRITERS},
    **{(name, "a"): ("tensor", None) for name in WRITERS},
    **{(name, "b"): (None, "fsdp") for name in WRITERS},
}


@dataclass(frozen=True)
class MeshSpec:
    """Devices along each axis; of one process's devices the first ones may be enough, of several processes it takes all.

    Attributes:
      attack, data, fsdp, tensor: sizes; one of them may be -1, for whatever devices the others leave.
      part: of a job's processes, which the run takes in place of all: ``I/N``, see :class:`~immunax.runtime.parts.Part`.
      topology: the TPU slice that the sizes are for, such as ``v5e:16x16``; ``immunax.compile`` compiles for it.
      slices: how many such slices; None for as many as the devices are of. See :mod:`~immunax.runtime.slices`.
    """

    attack: int = 1
    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    part: str | None = None
    topology: str | None = None
    slices: int | None = None


def build(spec: MeshSpec, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh a specification describes.

    Args:
      spec: sizes of the four axes.
      devices: what to lay it on; all devices of the run by default.

    Returns:
      A mesh with the axes of ``AXES``, in that order, sharded by the compiler (``AxisType.Auto``).

    Raises:
      UserError: a size is not positive, the sizes do not multiply to a number of devices that the run has, or they do not lie on
        its slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, types = _sizes(spec, len(devices)), (AxisType.Auto,) * len(AXES)
    used = devices[: math.prod(sizes)]
    laid = layout(by_slice(used, spec.slices), dict(zip(AXES, sizes, strict=True)))
    return Mesh(laid, AXES, axis_types=types)


def alone() -> Mesh:
    """A mesh of one device of this process, for what it does by itself."""
    return jax.make_mesh(
        (1,) * len(AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.local_devices()[:1]
    )


def for_one_model(mesh: Mesh) -> Mesh:
    """The mesh itself, where one model is trained or attacked.

    Raises:
      UserError: it has devices along ``attack``, which would all do the same.
    """
    if mesh.shape["attack"] > 1:
        raise UserError(
            f"mesh.attack={mesh.shape['attack']}: one model has no members to spread; spread its examples (mesh=data) or its "
            "weights (mesh=fsdp). A search has members: immunax.attack +attack=search."
        )
    return mesh


def _sizes(spec: MeshSpec, available: int) -> tuple[int, ...]:
    sizes: dict[str, int] = {axis: getattr(spec, axis) for axis in AXES}
    for axis, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < -1 or size == 0:
            raise UserError(f"mesh.{axis}={size!r}: expected a positive whole number, or -1 for all devices left over")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise UserError(f"mesh.{free[0]} and mesh.{free[1]} are both -1: only one axis can take the devices left over")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    shown = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
    if free and available % fixed:
        raise UserError(f"mesh {shown}: {fixed} does not divide the {available} devices of this run")
    for axis in free:
        sizes[axis] = available // fixed
    total = math.prod(sizes.values())
    many = jax.process_count() > 1
    # Every process has to take part in a program, and of a slice all are needed.
    if total > available or (total != available and (many or (total > 1 and spec.topology))):
        raise UserError(f"mesh {shown} needs {total} devices, this run has {available}; change the sizes or use -1")
    return tuple(sizes[axis] for axis in AXES)


def partition_spec(
    path: Sequence[str], shape: Sequence[int], mesh: Mesh | AbstractMesh, stacked: bool = False
) -> PartitionSpec:
    """How one parameter is split.

    Args:
      path: names from the root; only the end counts, so the moments of an optimizer follow their parameter.
      shape: its shape; an axis that the mesh axis does not divide stays whole.
      mesh: from ``build``.
      stacked: the first axis counts the members of a population and goes on ``attack``.

    Returns:
      One entry an axis of ``shape``, up to the last that is split: as the compiler writes what it leaves, so that a step's
      result is no other input to the next one.
    """
    trailing = next((_RULES[key] for key in _pairs(path) if key in _RULES), ())
    trailing = trailing if len(trailing) <= len(shape) - stacked else ()
    axes: list[str | None] = [None] * (len(shape) - len(trailing)) + list(trailing)
    if stacked:
        axes[0] = "attack"
    split = [
        axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, shape, strict=True)
    ]
    while split and split[-1] is None:
        split.pop()
    return PartitionSpec(*split)


def _pairs(path: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(path[-2::-1], path[:0:-1], strict=True))


def shardings(tree: Any, mesh: Mesh, stacked: bool = False) -> Any:
    """The sharding of every leaf of a pytree in the parameter layout: parameters, LoRA factors, optimizer state.

    Args:
      tree: leaves with a ``shape`` (arrays or ``jax.ShapeDtypeStruct``).
      mesh: from ``build``.
      stacked: every leaf has a leading population axis.

    Returns:
      The same tree of ``NamedSharding``.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, partition_spec([_name(key) for key in path], np.shape(leaf), mesh, stacked))

    return jax.tree_util.tree_map_with_path(one, tree)


def sharded(shapes: Any, mesh: Mesh, stacked: bool = False) -> Any:
    """Shapes of weights, and of what follows them, each with its sharding by the mesh's table; see :func:`shardings`."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings(shapes, mesh, stacked),
    )


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))


def shard(tree: Any, mesh: Mesh, stacked: bool = False) -> Any:
    """Puts a pytree on the mesh by the table of rules.

    Args:
      tree: NumPy or JAX arrays; with several processes each holds the whole value.
      mesh: from ``build``.
      stacked: every leaf has a leading population axis.

    Returns:
      The same values, as global arrays.
    """
    return jax.tree.map(_place, tree, shardings(tree, mesh, stacked))


def shard_batch(batch: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Splits the examples of a batch over the ``data`` and ``fsdp`` axes.

    Args:
      batch: a pytree of arrays ``[B, ...]``; with several processes each holds the whole batch.
      mesh: from ``build``.
      axis: which axis is B; 1 for batches stacked on a leading axis.

    Returns:
      The same values, as global arrays.

    Raises:
      UserError: the examples do not divide over the devices.
    """
    ways = data_ways(mesh)
    rows = {np.shape(leaf)[axis] for leaf in jax.tree.leaves(batch)}
    if any(size % ways for size in rows):
        raise UserError(f"a batch of {max(rows)} does not divide over data x fsdp = {ways} devices; use a multiple")
    split = NamedSharding(mesh, PartitionSpec(*[None] * axis, ("data", "fsdp")))
    return jax.tree.map(lambda leaf: _place(leaf, split), batch)


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that weights lie on, where that is of several devices.

    Args:
      params: any pytree of arrays.
    """
    meshes = (getattr(getattr(leaf, "sharding", None), "mesh", None) for leaf in jax.tree.leaves(params))
    return next((each for each in meshes if isinstance(each, Mesh) and each.size > 1), None)


def device_count(mesh: Mesh | None) -> int:
    """How many devices compute what lies on a mesh; one for None."""
    return 1 if mesh is None else mesh.size


def under(params: Any) -> AbstractContextManager[Any]:
    """The mesh that weights lie on as ``jax.set_mesh`` has it, where that is of several devices: a program then splits its rows.

    Args:
      params: any pytree of arrays.
    """
    mesh = mesh_of(params)
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def _traced_under() -> AbstractMesh | None:
    """The mesh of ``jax.set_mesh``, where requests to the compiler can be made.

    None within a ``shard_map``, as of a population whose devices each have members of their own and whole weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.manual_axes else mesh


def data_ways(mesh: Mesh | AbstractMesh | None = None) -> int:
    """Over how many devices a mesh splits examples; by default that which is traced under (``jax.set_mesh``), if any."""
    mesh = _traced_under() if mesh is None else mesh
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def split_rows(values: jax.Array, axis: int = 0) -> jax.Array:
    """The same values, with the request to the compiler to split one axis over ``data`` and ``fsdp``, and no other.

    Left alone, the compiler may as well split the width of an activation, since that is how the matrices that made it are
    stored; then every device computes on every example. The gradient is split alike.

    Args:
      values: an activation within a jitted function; as it is where there is no mesh, or the axis does not divide.
      axis: which to split; that of the examples, or one of as many independent numbers.
    """
    ways = data_ways()
    if ways == 1 or values.shape[axis] % ways:
        return values
    axes: list[Any] = [None] * values.ndim
    axes[axis] = ("data", "fsdp")
    return laid(values, *axes)


def laid(values: jax.Array, *axes: Any) -> jax.Array:
    """:func:`split_rows` by name: an axis over the mesh axis or axes named for it, whole for None or where they do not divide."""
    mesh = _traced_under()
    if mesh is None or math.prod(mesh.shape.values()) == 1:
        return values
    ways = [math.prod(mesh.shape[each] for each in np.atleast_1d(names)) if names else 1 for names in axes]
    fits = [names if size % way == 0 else None for names, size, way in zip(axes, values.shape, ways, strict=True)]
    return jax.lax.with_sharding_constraint(values, PartitionSpec(*fits))


def split_parameters(tree: Any, stacked: bool = False) -> Any:
    """The same parameters, with the request to the compiler to keep them, and their gradient, as the table says.

    Args:
      tree: parameters within a jitted function; as they are where there is no mesh.
      stacked: every leaf has a leading population axis.
    """
    mesh = _traced_under()
    if mesh is None or math.prod(mesh.shape.values()) == 1:
        return tree

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        spec = partition_spec([_name(key) for key in path], leaf.shape, mesh, stacked)
        return jax.lax.with_sharding_constraint(leaf, spec)

    return jax.tree_util.tree_map_with_path(one, tree)


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words, kind = _place(jax.random.key_data(leaf), sharding), jax.random.key_impl(leaf)
            return jax.jit(partial(jax.random.wrap_key_data, impl=kind), out_shardings=sharding)(words)
        if sharding.is_fully_addressable or not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
    # From the host, each device is sent its own part and nothing more.
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

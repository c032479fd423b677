"""The train step from shapes alone: what :func:`~immunax.outer.training.outer_step` takes, without weights or data."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from immunax.data.batches import Batch
from immunax.models.model import Model
from immunax.outer.defense import Defense, Mixture, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import OuterState, Training, begin, outer_step
from immunax.runtime.mesh import data_ways, sharded


def abstract_state(model: Model, defense: Defense, training: Training, batch: StreamBatch, devices: Mesh) -> OuterState:
    """The shapes of the state before the first step, each sharded by the mesh's table.

    Args:
      model, defense, training: static.
      batch: shapes, from :func:`abstract_batch`.
      devices: the mesh; its devices need not exist.

    Raises:
      UserError: the defense refuses this model.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    return sharded(jax.eval_shape(partial(_begin, model, defense, training), params, batch), devices)


def _begin(model: Model, defense: Defense, training: Training, params: Any, batch: StreamBatch) -> OuterState:
    return begin(model, params, defense, training, batch)


def abstract_batch(mixture: Mixture, training: Training, devices: Mesh) -> StreamBatch:
    """The shapes of one outer step's data, at their largest: one example a row, every row full, all of it answer.

    Args:
      mixture: examples a step; rows are the next multiple of the mesh's ``data`` x ``fsdp``.
      training: gives the tokens of a row, and how many batches of the mixture a step takes.
      devices: the mesh.
    """

    def rows(count: int, *leading: int) -> Batch:
        ways = data_ways(devices)
        first, *rest = *leading, -(-count // ways) * ways
        shape = (training.accumulate * first, *rest, training.max_length)
        split = NamedSharding(devices, PartitionSpec(*[None] * len(leading), ("data", "fsdp")))
        whole, real = (jax.ShapeDtypeStruct(shape, dtype, sharding=split) for dtype in (jnp.int32, jnp.float32))
        return Batch(whole, whole, whole, whole, whole, real)

    def attack(counts: Simulation) -> SimulatedAttack:
        steps, checks = rows(counts.batch, counts.steps), rows(counts.check, counts.checks)
        return SimulatedAttack(steps, checks, checks if counts.paired else None, steps if counts.mixed else None)

    safe, harmful, retain = (
        rows(count) if count else None for count in (mixture.safe, mixture.harmful, mixture.retain)
    )
    return StreamBatch(safe, harmful, retain, None if mixture.simulation is None else attack(mixture.simulation))


def trace_step(
    model: Model, defense: Defense, training: Training, state: OuterState, batch: StreamBatch, devices: Mesh
) -> Any:
    """The very step that ``immunax.train`` runs, traced for a mesh; its ``jaxpr`` can be counted, its ``lower()`` compiled.

    Args:
      model, defense, training: static.
      state, batch: shapes.
      devices: the mesh.
    """
    with jax.set_mesh(devices):
        return outer_step.trace(model, defense, training, state, batch)

"""What would help a train step that does not fit: the option that saves most, estimated from the shapes of what is kept."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from immunax.inner.state import begin
from immunax.models.flops import projections
from immunax.models.model import Model
from immunax.outer.defense import Defense, StreamBatch
from immunax.outer.training import TrainState
from immunax.pod.fit import device_bytes


class Saving(NamedTuple):
    """An option, as a person would write it, and the bytes it takes off each device."""

    option: str
    bytes: float


def advise(model: Model, defense: Defense, state: TrainState, batch: StreamBatch, devices: Mesh) -> list[Saving]:
    """The options that would take memory off, most first.

    Args:
      model, defense: static.
      state, batch: shapes, sharded.
      devices: the mesh.
    """
    options = [
        *_activation_options(model, batch, devices),
        *_inner_options(defense, state),
        *_sharding_options(defense, state, devices),
    ]
    return sorted(options, key=lambda each: each.bytes, reverse=True)


def _activation_options(model: Model, batch: StreamBatch, devices: Mesh) -> list[Saving]:
    kept, least = (activation_bytes(model, remat, batch, devices) for remat in (model.remat, "full"))
    shorter = Saving("trainer.max_length, half of it", kept / 2)
    return [shorter] if model.remat == "full" else [Saving("compute.remat=full", kept - least), shorter]


def activation_bytes(model: Model, remat: str, batch: StreamBatch, devices: Mesh) -> float:
    """Bytes that each device keeps of one forward pass over the largest batch, for the backward pass.

    Args:
      model: static.
      remat: what layers make again, in place of the model's own.
      batch: shapes.
      devices: the mesh.
    """
    c, tensor, number = model.config, devices.shape["tensor"], 2 if model.dtype in ("bfloat16", "float16") else 4
    inner = batch.simulation and batch.simulation._replace(safe_checks=None, retain=None)
    shapes = {leaf.sharding.shard_shape(leaf.shape)[-2:] for leaf in jax.tree.leaves((batch, inner))}
    rows, length = max(shapes, key=lambda shape: shape[0] * shape[1])
    stream = c.d_model * number
    made = sum(out for _, out in projections(c).values()) * number / tensor
    # Scores and their softmax, of each head with each token before.
    scores = c.n_heads * length * (number + 4) / tensor
    norms = 2 * c.d_model * (number + 4)
    each_token = {"full": 0.0, "dots": made, "none": made + scores + norms}[remat]
    return rows * length * c.n_layers * (stream + each_token)


def _inner_options(defense: Defense, state: TrainState) -> list[Saving]:
    attacker: Any = getattr(defense, "attacker", None)
    simulation = defense.mixture.simulation
    if attacker is None or simulation is None or attacker.lora is not None:
        return []
    optimizer = attacker.optimizer.build(simulation.steps)
    adapted = jax.eval_shape(lambda weights: begin(optimizer, weights), state.params)
    # Weights and moments have the shapes of the weights, and lie on the mesh as they do.
    copies = sum(leaf.size for leaf in jax.tree.leaves(adapted)) / sum(
        leaf.size for leaf in jax.tree.leaves(state.params)
    )
    one, kept = copies * device_bytes(state.params), kept_steps(attacker.estimator, simulation.steps, simulation.checks)
    lora = Saving("an attacker of adapters, defense.attacker.lora", kept * one)
    if kept == 1 or simulation.steps == 1:
        return [lora]
    fewer = simulation.steps // 2
    saved = kept - kept_steps(attacker.estimator, fewer, max(1, simulation.checks // 2))
    return [lora, Saving(f"fewer inner steps, defense.mixture.simulation.steps={fewer}", saved * one)]


def kept_steps(estimator: Any, steps: int, checks: int) -> int:
    """How many states of the inner loop are alive at once: one, unless the estimator goes back through its steps."""
    remat = getattr(estimator, "remat", None)
    if remat is None:
        return 1
    through = min(steps, getattr(estimator, "last", steps))
    return max(1, through if remat != "segments" else checks + -(-through // checks))


def _sharding_options(defense: Defense, state: TrainState, devices: Mesh) -> list[Saving]:
    held = device_bytes(state) + device_bytes(state.params)
    held += sum(saving.bytes for saving in _inner_options(defense, state)[:1])
    if devices.shape["data"] > 1:
        fsdp = devices.shape["data"] * devices.shape["fsdp"]
        return [Saving(f"more sharding, mesh.data=1 mesh.fsdp={fsdp}", held * (1 - 1 / devices.shape["data"]))]
    return [Saving(f"more sharding, a mesh of more chips with mesh.fsdp={2 * devices.shape['fsdp']}", held / 2)]

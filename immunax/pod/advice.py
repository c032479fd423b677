"""What would help a train step that does not fit: the option that saves most, estimated from the shapes of what is kept."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from immunax.inner.state import begin
from immunax.models.kernels.choice import MASKED
from immunax.models.lora import LoraSpec
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, StreamBatch
from immunax.outer.training import OuterState, Training
from immunax.pod.abstract_step import abstract_batch, abstract_state
from immunax.pod.fit import device_bytes
from immunax.runtime.mesh import sharded


class Saving(NamedTuple):
    """An option, as a person would write it, and the bytes it takes off each device."""

    option: str
    bytes: float


def advise(
    model: Model, defense: Defense, training: Training, state: OuterState, batch: StreamBatch, devices: Mesh
) -> list[Saving]:
    """The options that would take memory off, most first.

    Args:
      model, defense, training: static.
      state, batch: shapes, sharded.
      devices: the mesh.
    """
    weights = sharded(jax.eval_shape(model.init, jax.random.key(0)), devices)
    inner = _inner_options(defense, weights, devices)
    options = [
        *_activation_options(model, abstract_batch(defense.mixture, replace(training, accumulate=1), devices), devices),
        *_adapter_options(model, defense, training, state, batch, devices),
        *inner,
        _sharding_option(_held_bytes(state) + sum(saving.bytes for saving in inner[:1]), devices),
    ]
    return sorted(options, key=lambda each: each.bytes, reverse=True)


def _held_bytes(state: OuterState) -> int:
    """What a step holds all along: its state, and the gradient of what trains."""
    return device_bytes(state) + device_bytes(state.train.trained)


def _adapter_options(
    model: Model, defense: Defense, training: Training, state: OuterState, batch: StreamBatch, devices: Mesh
) -> list[Saving]:
    if training.lora is not None:
        return []
    adapted = abstract_state(model, defense, replace(training, lora=LoraSpec()), batch, devices)
    saved = _held_bytes(state) - _held_bytes(adapted)
    return [Saving("a defender of adapters, trainer.lora", saved)] if saved > 0 else []


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
    c, tensor, number = model.config, devices.shape["tensor"], 2 if model.dtype == "bfloat16" else 4
    inner = batch.simulation and batch.simulation._replace(safe_checks=None, retain=None)
    shapes = {leaf.sharding.shard_shape(leaf.shape)[-2:] for leaf in jax.tree.leaves((batch, inner))}
    rows, length = max(shapes, key=lambda shape: shape[0] * shape[1])
    stream = c.d_model * number
    made = sum(out for _, out in c.projections().values()) * number / tensor
    # Scores and their softmax, of each head with each token before, where attention writes them.
    scores = c.n_heads * length * (number + 4) / tensor if model.attention in MASKED else 0.0
    norms = 2 * c.d_model * (number + 4)
    each_token = {"full": 0.0, "dots": made, "none": made + scores + norms}[remat]
    return rows * length * c.n_layers * (stream + each_token)


def _inner_options(defense: Defense, weights: Params, devices: Mesh) -> list[Saving]:
    attacker, simulation = defense.attacker, defense.mixture.simulation
    whole = () if attacker is None else tuple(each for each in attacker.attackers() if each.lora is None)
    if attacker is None or simulation is None or not whole:
        return []
    descents = [jax.eval_shape(partial(begin, each.optimizer.build(simulation.steps)), weights) for each in whole]
    # Weights and moments lie on the mesh as the weights do.
    one = max(device_bytes(sharded(each, devices)) for each in descents)
    kept = attacker.estimator.states_alive(simulation.steps, simulation.checks)
    lora = Saving("an attacker of adapters, defense.attacker.lora", kept * one)
    if kept == 1 or simulation.steps == 1:
        return [lora]
    fewer = simulation.steps // 2
    saved = kept - attacker.estimator.states_alive(fewer, max(1, simulation.checks // 2))
    return [lora, Saving(f"fewer inner steps, defense.mixture.simulation.steps={fewer}", saved * one)]


def _sharding_option(held: float, devices: Mesh) -> Saving:
    data, fsdp = devices.shape["data"], devices.shape["fsdp"]
    if data > 1:
        return Saving(f"more sharding, mesh.data=1 mesh.fsdp={data * fsdp}", held * (1 - 1 / data))
    return Saving(f"more sharding, a mesh of more chips with mesh.fsdp={2 * fsdp}", held / 2)

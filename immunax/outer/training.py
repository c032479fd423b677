"""The outer loop: a defense's loss, minimised step by step, resumable bit for bit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from immunax.inner.optimizers import AdamW, Optimizer
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Scalars, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Training:
    """An outer loop's budget and bookkeeping.

    Attributes:
      steps: outer steps.
      optimizer: rule and schedule.
      max_length: tokens an example may have; longer answers are cut.
      seed: of the data's order and of every random key.
      checkpoint_every: outer steps between checkpoints; there is always one after the last step.
      keep_last, keep_best: how many checkpoints stay: the most recent, and those of least loss.
    """

    steps: int = 20
    optimizer: Optimizer = field(default_factory=AdamW)
    max_length: int = 128
    seed: int = 0
    checkpoint_every: int = 10
    keep_last: int = 1
    keep_best: int = 0

    def __post_init__(self):
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("keep_last", 1), ("keep_best", 0)):
            if getattr(self, name) < least:
                raise UserError(f"trainer.{name}={getattr(self, name)}: expected at least {least}.")


class TrainState(NamedTuple):
    """All that a run needs to go on: with the step, the data's position is known too.

    Attributes:
      step: outer steps done, int32.
      params: the defender's weights, float32.
      optimizer: optax state.
      defense: what the defense carries.
      key: the run's random key; step t uses ``fold_in(key, t)``.
      pool: what its simulated attacker carries, such as attacks kept for replay; ``()`` for nothing.
    """

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    defense: Any
    key: jax.Array
    pool: Any = ()


def begin(model: Model, params: Params, defense: Defense, training: Training, batch: StreamBatch) -> TrainState:
    """The state before the first step; ``params`` are copied, as steps donate their state."""
    key, init_key = jax.random.split(jax.random.key(training.seed))
    optimizer = training.optimizer.build(training.steps)
    params = jax.tree.map(jnp.copy, params)
    pool = () if defense.attacker is None else defense.attacker.empty_pool(batch.simulation)
    carried = defense.init(model, params, batch, init_key)
    return TrainState(jnp.int32(0), params, optimizer.init(params), carried, key, pool)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def outer_step(
    model: Model, defense: Defense, training: Training, state: TrainState, batch: StreamBatch
) -> tuple[TrainState, Scalars]:
    """One outer step; the old state's memory becomes the new one's.

    Args:
      model, defense, training: static.
      state: donated.
      batch: this step's data.

    Returns:
      The state after the step, and scalars: ``loss``, ``grad_norm``, the defense's own and its attackers'.
    """
    key, carried, pool, attacker = (
        jax.random.fold_in(state.key, state.step),
        state.defense,
        state.pool,
        defense.attacker,
    )
    drawn = None
    if attacker is not None:
        drawn, key = attacker.draw(pool, batch.simulation, key)
        batch = batch._replace(simulation=drawn.attack)
    if defense.evolves:
        key, advance_key = jax.random.split(key)
        carried = defense.advance(model, state.params, carried, batch, state.step, training.steps, advance_key)

    def objective(params):
        return defense.loss(model, params, carried, batch, key)

    (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer = training.optimizer.build(training.steps).update(gradient, state.optimizer, state.params)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradient), **metrics}
    if attacker is not None and drawn is not None:
        pool, seen = attacker.keep(pool, drawn, metrics)
        metrics |= seen
    params = optax.apply_updates(state.params, updates)
    state = state._replace(step=state.step + 1, params=params, optimizer=optimizer, defense=carried, pool=pool)
    return state, metrics


def fit(
    model: Model,
    defense: Defense,
    training: Training,
    state: TrainState,
    batch: Callable[[int], StreamBatch],
    log: Callable[[int, dict[str, float]], None],
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[TrainState, dict[str, float]]:
    """Steps from ``state.step`` to ``training.steps``, with the host a step behind the device.

    While the device takes a step, the host makes the next one's data and reads the scalars of the one before.

    Args:
      model, defense, training: static.
      state: from :func:`begin`, a checkpoint or a call that was stopped, with steps left to take; donated.
      batch: data of a step, by its number from 0.
      log: called after every step, in order, with the number of steps done and the step's scalars.
      stop: asked once for every step on its way, by the number of steps done after it, whether to stop there.

    Returns:
      The state after the last step, and that step's scalars; they are finite.

    Raises:
      UserError: the loss is not finite; that step is not logged.
    """
    done, before = int(state.step), None
    data = batch(done)
    while True:
        state, metrics = outer_step(model, defense, training, state, data)
        done += 1
        last = done == training.steps or stop(done)
        if not last:
            data = batch(done)
        if before is not None:
            log(done - 1, _read(done - 1, before))
        if last:
            scalars = _read(done, metrics)
            log(done, scalars)
            return state, scalars
        before = metrics


def _read(step: int, metrics: Scalars) -> dict[str, float]:
    scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not math.isfinite(scalars["loss"]) or not math.isfinite(scalars["grad_norm"]):
        raise UserError(
            f"the loss is {scalars['loss']} (gradient norm {scalars['grad_norm']}) at outer step {step}: "
            "lower its optimizer.learning_rate."
        )
    return scalars

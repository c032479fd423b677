"""The outer loop: a defense's loss, minimised step by step, resumable bit for bit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.inner import state as inner
from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.state import TrainState
from immunax.inner.step import accumulated, slope_of, train_step
from immunax.inner.trainable import Adapters, Trainable
from immunax.models.lora import LoraSpec, plain
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
      accumulate: batches of the defense's mixture that a step takes the mean loss over, one after the other.
      lora: adapters that are trained in place of what the defense trains by itself, or None; they are merged at the end.
      checkpoint_every: outer steps between checkpoints; there is always one after the last step.
      keep_last, keep_best: how many checkpoints stay: the most recent, and those of least loss.
    """

    steps: int = 20
    optimizer: Optimizer = field(default_factory=AdamW)
    max_length: int = 128
    seed: int = 0
    accumulate: int = 1
    lora: LoraSpec | None = None
    checkpoint_every: int = 10
    keep_last: int = 1
    keep_best: int = 0

    def __post_init__(self):
        least = {"steps": 1, "accumulate": 1, "checkpoint_every": 1, "keep_last": 1, "keep_best": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UserError(f"trainer.{name}={getattr(self, name)}: expected at least {number}.")

    def trainable(self, model: Model, defense: Defense) -> Trainable:
        """What a run of this training trains."""
        return defense.trainable(model) if self.lora is None else Adapters(self.lora)


class OuterState(NamedTuple):
    """All that a run needs to go on: with the step, the data's position is known too.

    Attributes:
      train: step, weights and optimizer; its key is the run's, of which step t uses ``fold_in(key, t)``.
      defense: what the defense carries.
      pool: what its simulated attacker carries, such as attacks kept for replay; ``()`` for nothing.
    """

    train: TrainState
    defense: Any
    pool: Any = ()


def begin(
    model: Model,
    params: Params,
    defense: Defense,
    training: Training,
    batch: StreamBatch,
    base: Params | None = None,
) -> OuterState:
    """The state before the first step; ``params`` are plain, and copied, as steps donate their state.

    ``base`` is the model before a start changed it, for a defense whose reference it is; None where it is ``params``.

    Raises:
      UserError: the defense or the adapters do not fit the model, or steps cannot be accumulated.
    """
    key, init_key, lora_key = jax.random.split(jax.random.key(training.seed), 3)
    trainable = training.trainable(model, defense)
    trained, held = trainable.split(jax.tree.map(jnp.copy, params), lora_key)
    pool = () if defense.attacker is None else defense.attacker.empty_pool(batch.simulation)
    if training.accumulate > 1 and jax.tree.leaves(pool):
        raise UserError(
            f"trainer.accumulate={training.accumulate}: a population of attackers makes one attack a step; set it to 1."
        )
    carried = defense.init(model, trainable.join(trained, held), batch, init_key)
    carried = defense.remember(model, carried, params if base is None else base)
    return OuterState(inner.begin(training.optimizer.build(training.steps), trained, held, key), carried, pool)


def released(model: Model, defense: Defense, training: Training, state: OuterState) -> Params:
    """The weights that a run gives away: plain ones, its adapters merged."""
    return plain(training.trainable(model, defense).join(state.train.trained, state.train.held))


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def outer_step(
    model: Model, defense: Defense, training: Training, state: OuterState, batch: StreamBatch
) -> tuple[OuterState, Scalars]:
    """One outer step; the old state's memory becomes the new one's.

    Args:
      model, defense, training: static.
      state: donated.
      batch: this step's data: with ``training.accumulate``, batches one behind the other on every leaf's leading axis.

    Returns:
      The state after the step, and scalars: ``loss``, ``grad_norm``, the defense's own and its attackers'.
    """
    train, carried, pool = state
    attacker, trainable, drawn = defense.attacker, training.trainable(model, defense), None
    key = jax.random.fold_in(train.key, train.step)
    if attacker is not None:
        drawn, key = attacker.draw(pool, batch.simulation, key)
        batch = batch._replace(simulation=drawn.attack)
    if defense.evolves:
        key, advance_key = jax.random.split(key)
        params = trainable.join(train.trained, train.held)
        carried = defense.advance(model, params, carried, batch, train.step, training.steps, advance_key)

    def loss(params: Params, part: tuple[StreamBatch, jax.Array]) -> tuple[jax.Array, Scalars]:
        streams, keys = part
        return defense.loss(model, params, carried, streams, keys[0])

    keys = key[None] if training.accumulate == 1 else jax.random.split(key, training.accumulate)
    slope_at = accumulated(slope_of(loss, trainable), training.accumulate, lambda part: jnp.float32(1))
    train, metrics = train_step(slope_at, training.optimizer.build(training.steps), train, (batch, keys))
    if attacker is not None and drawn is not None:
        pool, seen = attacker.keep(pool, drawn, metrics)
        metrics = metrics | seen
    return OuterState(train, carried, pool), metrics


def fit(
    model: Model,
    defense: Defense,
    training: Training,
    state: OuterState,
    batch: Callable[[int], StreamBatch],
    log: Callable[[int, dict[str, float]], None],
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[OuterState, dict[str, float]]:
    """Steps from the state's to ``training.steps``, with the host a step behind the device.

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
    done, before = int(state.train.step), None
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

"""The outer loop: a defense's loss, minimised step by step, resumable bit for bit."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from immunax.inner import state as inner
from immunax.inner import turns
from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.state import TrainState
from immunax.inner.step import SlopeAt, accumulated, slope_of, train_step
from immunax.inner.trainable import Adapters, Trainable
from immunax.models.compute_copy import apart_from, compute_copy
from immunax.models.lora import LoraSpec, plain
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Scalars, StreamBatch
from immunax.runtime import pace, profile, together
from immunax.runtime.errors import DivergedError, UserError

RESULTS, EXPORT, LAST, ALL = KEEPS = ("results", "export", "last", "all")
"""What a finished run leaves beside its records: no weights; its export; the newest checkpoint too; every one that there is."""


@dataclass(frozen=True)
class Training:
    """An outer loop's budget and bookkeeping.

    Attributes:
      steps: outer steps.
      optimizer: rule and schedule.
      turns: in place of one optimizer, one for each part of the defense's objective, by the names that the defense gives them;
        an outer step has an update of each.
      max_length: tokens an example may have, without what a chat template adds; longer answers are cut.
      seed: of the data's order and of every random key.
      accumulate: batches of the defense's mixture that a step takes the mean loss over, one after the other.
      lora: adapters that are trained in place of what the defense trains by itself, or None; they are merged at the end.
      checkpoint_every: outer steps between checkpoints; there is always one after the last step.
      keep_last, keep_best: how many checkpoints there are along the way: the most recent, of which a damaged one gives way to the
        one before it, and those of least loss.
      keep: what a finished run leaves: one of :data:`KEEPS`.
    """

    steps: int = 20
    optimizer: Optimizer = field(default_factory=AdamW)
    turns: Mapping[str, Optimizer] | None = None
    max_length: int = 128
    seed: int = 0
    accumulate: int = 1
    lora: LoraSpec | None = None
    checkpoint_every: int = 10
    keep_last: int = 2
    keep_best: int = 0
    keep: str = EXPORT

    def __post_init__(self):
        if self.turns is not None:
            object.__setattr__(self, "turns", FrozenDict(self.turns))
        least = {"steps": 1, "accumulate": 1, "checkpoint_every": 1, "keep_last": 1, "keep_best": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UserError(f"trainer.{name}={getattr(self, name)}: expected at least {number}.")
        if self.keep not in KEEPS:
            raise UserError(f"trainer.keep={self.keep!r}: expected one of {', '.join(KEEPS)}.")
        if self.keep_best and self.keep != ALL:
            raise UserError(
                f"trainer.keep_best={self.keep_best}: the best checkpoints stay with trainer.keep=all alone; set that, or "
                "trainer.keep_best=0."
            )

    def trainable(self, model: Model, defense: Defense) -> Trainable:
        """What a run of this training trains."""
        return defense.trainable(model) if self.lora is None else Adapters(self.lora)

    def takers(self, defense: Defense) -> Mapping[str, tuple[Defense, Optimizer]]:
        """What takes turns in an outer step: parts of a defense with their optimizers, by name; none where one takes it whole.

        Raises:
          UserError: the optimizers that take turns are not those of the defense's parts.
        """
        if self.turns is None:
            return {}
        parts = defense.parts()
        if set(parts) != set(self.turns):
            expected = f"one optimizer for each of {', '.join(parts)}" if parts else "null, as it has no parts"
            raise UserError(f"trainer.turns has {', '.join(self.turns)}: {type(defense).__name__} expects {expected}.")
        return {name: (part, self.turns[name]) for name, part in parts.items()}


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

    What is held of them is only read, so it is held as the computation reads it, see :func:`computed`. ``base`` is the model
    before a start changed it, for a defense whose reference it is; None where it is ``params``.

    Raises:
      UserError: the defense or the adapters do not fit the model, or steps cannot be accumulated.
    """
    key, init_key, lora_key = jax.random.split(jax.random.key(training.seed), 3)
    trainable = training.trainable(model, defense)
    trained, held = trainable.split(params, lora_key)
    held = _as_read(model, defense, trainable, held, trainable.frozen(params))
    trained, held = apart_from(params, (trained, held))
    pool = () if defense.attacker is None else defense.attacker.empty_pool(batch.simulation)
    if training.accumulate > 1 and jax.tree.leaves(pool):
        raise UserError(
            f"trainer.accumulate={training.accumulate}: a population of attackers makes one attack a step; set it to 1."
        )
    carried = defense.init(model, trainable.join(trained, held), batch, init_key)
    carried = defense.remember(model, carried, params if base is None else base)
    if takers := training.takers(defense):
        rules = {name: optimizer.build(training.steps) for name, (_, optimizer) in takers.items()}
        return OuterState(turns.begin(rules, trained, held, key), carried, pool)
    return OuterState(inner.begin(training.optimizer.build(training.steps), trained, held, key), carried, pool)


def _as_read(model: Model, defense: Defense, trainable: Trainable, held: Any, frozen: Any) -> Any:
    # A simulated attacker merges adapters into the weights below them, and starts from the sum: that takes all their bits.
    if frozen is None or defense.attacker is not None:
        return held
    return trainable.holding(held, compute_copy(frozen, model.dtype))


def exact(model: Model, defense: Defense, training: Training, state: OuterState, start: Params) -> OuterState:
    """The state with the float32 weights that it began with where it holds copies: what is kept, merged and given away.

    Args:
      model, defense, training: static.
      state: of a run.
      start: the weights that it began with.
    """
    trainable = training.trainable(model, defense)
    held = trainable.holding(state.train.held, trainable.frozen(start))
    return state._replace(train=state.train._replace(held=held))


def computed(model: Model, defense: Defense, training: Training, state: OuterState, start: Params) -> OuterState:
    """The state of :func:`exact` as steps take it: what is held, and only read, in the dtype of the computation.

    Args:
      model, defense, training, start: as there.
      state: of a run, such as one restored.
    """
    trainable = training.trainable(model, defense)
    held = _as_read(model, defense, trainable, state.train.held, trainable.frozen(start))
    return state._replace(train=state.train._replace(held=apart_from(start, held)))


def released(model: Model, defense: Defense, training: Training, state: OuterState, start: Params) -> Params:
    """The weights that a run gives away: plain ones, its adapters merged into those that it began with."""
    return plain(_weights(model, defense, training, exact(model, defense, training, state, start)))


def adapters(model: Model, defense: Defense, training: Training, state: OuterState) -> Any:
    """The adapters that a run trained, as :attr:`~immunax.models.lora.Adapted.lora`; None for none."""
    return None if training.lora is None else _weights(model, defense, training, state).lora


def _weights(model: Model, defense: Defense, training: Training, state: OuterState) -> Params:
    return training.trainable(model, defense).join(state.train.trained, state.train.held)


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

    train, metrics = _updated(model, defense, training, carried, train, batch, key)
    if attacker is not None and drawn is not None:
        pool, seen = attacker.keep(pool, drawn, metrics)
        metrics = metrics | seen
    return OuterState(train, carried, pool), metrics


def _updated(
    model: Model,
    defense: Defense,
    training: Training,
    carried: Any,
    train: TrainState,
    batch: StreamBatch,
    key: jax.Array,
) -> tuple[TrainState, Scalars]:
    """The update of an outer step, or its updates one after the other where optimizers take turns."""

    def slope_at(part: Defense) -> SlopeAt:
        def loss(params: Params, data: tuple[StreamBatch, jax.Array]) -> tuple[jax.Array, Scalars]:
            streams, keys = data
            return part.loss(model, params, carried, streams, keys[0])

        each = slope_of(loss, training.trainable(model, defense))
        return accumulated(each, training.accumulate, lambda data: jnp.float32(1))

    data = batch, key[None] if training.accumulate == 1 else jax.random.split(key, training.accumulate)
    takers = training.takers(defense)
    if not takers:
        moves = defense.moves(carried, train.trained, train.held)
        return train_step(slope_at(defense), training.optimizer.build(training.steps), train, data, moves)
    each = {name: (slope_at(part), rule.build(training.steps)) for name, (part, rule) in takers.items()}
    return turns.take_turns(each, train, data)


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
      DivergedError: the loss is not finite; that step is not logged.
    """
    done, before = int(state.train.step), None
    data = batch(done)
    while True:
        pace.worked()
        with profile.step(profile.TRAIN, done + 1, before):
            state, metrics = outer_step(model, defense, training, state, data)
        if before is None and together.processes() > 1:
            # Whose cache has the program would go on to the next step, and the others, who compile it, be behind.
            jax.block_until_ready(metrics)
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
        raise DivergedError(
            f"the loss is {scalars['loss']} (gradient norm {scalars['grad_norm']}) at outer step {step}: "
            "lower its optimizer.learning_rate."
        )
    return scalars

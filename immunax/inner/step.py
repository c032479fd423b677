"""One training step, and one scan of them.

A step is a slope, the loss and its gradient where the state stands, and what an optimizer makes of it. Slopes are values, so
that one step serves plain losses, micro-batches, gradients that are known already and ones that are differentiated again.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from immunax.inner.state import Trace, TrainState
from immunax.inner.trainable import WHOLE, Trainable, at_step
from immunax.models.model import Params

Loss = Callable[[Params, Any], Any]
"""``loss(params, batch) -> scalar``, of the whole weights; or ``(scalar, metrics)``, metrics being scalars by name."""

Scalars = dict[str, jax.Array]
"""What a loss gives to be logged, by name."""


class Slope(NamedTuple):
    """A loss where a state stands.

    Attributes:
      loss: scalar.
      gradient: by what is trained.
      metrics: scalars by name that the loss gave beside.
    """

    loss: jax.Array
    gradient: Any
    metrics: Mapping[str, jax.Array] = {}


SlopeAt = Callable[[Any, Any, Any], Slope]
"""``slope_at(trained, held, batch)``."""


def slope_of(loss: Loss, trainable: Trainable = WHOLE) -> SlopeAt:
    """The slope of a loss by what trains; what is held gets none."""

    def objective(trained: Any, held: Any, batch: Any) -> tuple[jax.Array, Any]:
        value = loss(trainable.join(trained, held), batch)
        return value if isinstance(value, tuple) else (value, {})

    def slope_at(trained: Any, held: Any, batch: Any) -> Slope:
        (value, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(trained, held, batch)
        return Slope(value, gradient, metrics)

    return slope_at


def accumulated(slope_at: SlopeAt, parts: int, weigh: Callable[[Any], jax.Array]) -> SlopeAt:
    """The same slope from micro-batches, one after the other, so that only one's activations are alive.

    A loss that is a mean over tokens is the mean of its micro-batches' losses weighted by their tokens: with ``weigh`` counting
    these, slope and metrics equal those of the whole batch up to rounding. With equal weights they would not, since micro-batches
    differ in how many tokens they have.

    Args:
      slope_at: of a micro-batch.
      parts: how many; they divide the leading axis of every leaf of a batch.
      weigh: ``weigh(micro-batch) -> scalar``, such as :func:`~immunax.inner.losses.answer_tokens`.
    """
    if parts == 1:
        return slope_at

    def total(trained: Any, held: Any, batch: Any) -> Slope:
        pieces = split(batch, parts)
        weights = jax.lax.map(weigh, pieces)
        weights = weights / jnp.where(weights.sum() > 0, weights.sum(), 1)

        def add(so_far: Slope, part: tuple[jax.Array, Any]) -> tuple[Slope, None]:
            weight, piece = part
            return jax.tree.map(lambda a, b: a + weight * b, so_far, slope_at(trained, held, piece)), None

        shapes = jax.eval_shape(slope_at, trained, held, jax.tree.map(lambda leaf: leaf[0], pieces))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(leaf, weights)), shapes)
        return jax.lax.scan(add, zeros, (weights, pieces))[0]

    return total


def take_step(
    optimizer: optax.GradientTransformation, state: TrainState, slope: Slope, moves: Any = None
) -> tuple[TrainState, Scalars]:
    """The step that a slope makes. Where loss and gradient are not finite, what is trained stays as it is from there on.

    Args:
      optimizer, state, slope: of the step.
      moves: what may move in it, of the shapes of what is trained or broadcast to them, bool: the rest and its moments stay. None
        for all.

    Returns:
      The state after it, and scalars: ``loss``, before the step, NaN after the step of divergence; ``grad_norm``; and those of
      the loss.
    """
    updates, moved = optimizer.update(slope.gradient, state.optimizer, state.trained)
    if moves is not None:
        updates = jax.tree.map(jnp.where, moves, updates, optax.tree.zeros_like(updates))
        moved = _where_like(moves, moved, state.optimizer)
    after = optax.apply_updates(state.trained, updates)
    norm = optax.tree.norm(slope.gradient)
    # The gradient's norm is known where gradients are clipped: reading all new weights instead would cost a pass over them.
    finite, healthy = jnp.isfinite(slope.loss) & jnp.isfinite(norm), ~state.diverged
    trained = jax.tree.map(
        lambda new, old: jnp.where(healthy & finite, new, old).astype(old.dtype), after, state.trained
    )
    diverged_at = jnp.where(healthy & ~finite, state.step, state.diverged_at)
    state = state._replace(step=state.step + 1, trained=trained, optimizer=moved, diverged_at=diverged_at)
    return state, {"loss": jnp.where(healthy, slope.loss, jnp.nan), "grad_norm": norm, **slope.metrics}


def _where_like(moves: Any, new: Any, old: Any) -> Any:
    """A new optimizer state, of which each tree like what is trained is the old one where nothing moves."""
    structure = jax.tree.structure(moves)

    def one(after: Any, before: Any) -> Any:
        return jax.tree.map(jnp.where, moves, after, before) if jax.tree.structure(after) == structure else after

    return jax.tree.map(one, new, old, is_leaf=lambda node: jax.tree.structure(node) == structure)


def train_step(
    slope_at: SlopeAt, optimizer: optax.GradientTransformation, state: TrainState, batch: Any, moves: Any = None
) -> tuple[TrainState, Scalars]:
    """One step on a batch; see :func:`take_step`."""
    return take_step(optimizer, state, slope_at(state.trained, at_step(state.held, state.step), batch), moves)


def scan_steps(
    slope_at: SlopeAt,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batches: Any,
    keep: Callable[[Callable], Callable] = lambda step: step,
) -> tuple[TrainState, Scalars]:
    """K steps in one ``lax.scan``, which does not carry what is held.

    Args:
      slope_at, optimizer: of every step.
      state: where to go on from.
      batches: a pytree with leading axis K, one slice a step.
      keep: what is done with a step's function: ``jax.checkpoint`` where a gradient through the scan makes steps again.

    Returns:
      The state after K steps, and the steps' scalars, ``[K]`` each.
    """
    held = state.held

    @keep
    def step(moving: TrainState, batch: Any) -> tuple[TrainState, Scalars]:
        moving, metrics = train_step(slope_at, optimizer, moving._replace(held=held), batch)
        return moving._replace(held=None), metrics

    moving, metrics = jax.lax.scan(step, state._replace(held=None), batches)
    return moving._replace(held=held), metrics


def trace_of(metrics: Scalars) -> Trace:
    """What a step's scalars, or those of several steps, say of it."""
    return Trace(metrics["loss"], metrics["grad_norm"])


def length(batches: Any) -> int:
    """The leading axis of a pytree of stacked batches."""
    return jax.tree.leaves(batches)[0].shape[0]


def split(batches: Any, parts: int) -> Any:
    """``[K, ...]`` to ``[parts, K / parts, ...]``."""
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batches)

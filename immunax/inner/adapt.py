"""The inner loop: optimizer steps as one scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

Loss = Callable[[Any, Any], jax.Array]
"""``loss(weights, batch) -> scalar``."""


class Descent(NamedTuple):
    """A descent on its way: the weights that are trained, and their optimizer's state."""

    weights: Any
    optimizer: Any


def start(optimizer: optax.GradientTransformation, weights: Any) -> Descent:
    """A descent at its first step."""
    return Descent(weights, optimizer.init(weights))


def step(
    loss: Loss, optimizer: optax.GradientTransformation, descent: Descent, batch: Any
) -> tuple[Descent, jax.Array]:
    """One gradient step, and the loss before it."""
    value, gradient = jax.value_and_grad(loss)(descent.weights, batch)
    updates, state = optimizer.update(gradient, descent.optimizer, descent.weights)
    return Descent(optax.apply_updates(descent.weights, updates), state), value


def descend(
    loss: Loss, optimizer: optax.GradientTransformation, descent: Descent, batches: Any
) -> tuple[Descent, jax.Array]:
    """K gradient steps in one ``lax.scan``.

    Args:
      loss: of the weights on a batch.
      optimizer: an optax transformation.
      descent: where to go on from.
      batches: a pytree with leading axis K, one slice a step.

    Returns:
      The descent after K steps, and ``[K]`` losses, each taken before its step.
    """
    return jax.lax.scan(lambda state, batch: step(loss, optimizer, state, batch), descent, batches)

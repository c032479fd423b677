"""The state of every loop: of a defender, an attack, a member of a population, a simulated attacker, an adversary."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

HEALTHY = -1
"""``TrainState.diverged_at`` of a state that has not diverged."""


class TrainState(NamedTuple):
    """A loop on its way.

    Attributes:
      step: int32, the optimizer steps that it was led through, those after it diverged included.
      trained: what moves, a pytree; its last finite value.
      held: what does not, a pytree; see :mod:`~immunax.inner.trainable`.
      optimizer: optax state, of what is trained alone; means nothing after a divergence.
      key: of whatever is random, or None.
      diverged_at: int32, the step (from 0) that was not finite and was not taken, or ``HEALTHY``.
    """

    step: jax.Array
    trained: Any
    held: Any
    optimizer: optax.OptState
    key: Any
    diverged_at: jax.Array

    @property
    def diverged(self) -> jax.Array:
        """Bool: it stays as it is."""
        return self.diverged_at != HEALTHY


class Trace(NamedTuple):
    """What the steps of a loop saw, each before it was taken.

    Attributes:
      loss: ``[K]``; NaN after a divergence.
      norm: ``[K]``, of the whole gradient, before it is clipped.
    """

    loss: Any
    norm: Any


def begin(optimizer: optax.GradientTransformation, trained: Any, held: Any = None, key: Any = None) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.int32(0), trained, held, optimizer.init(trained), key, jnp.int32(HEALTHY))

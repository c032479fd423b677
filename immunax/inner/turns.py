"""Optimizers that take turns within one step: each has a loss, numbers and a state of its own, and all move the same weights."""

from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
import optax

from immunax.inner import state as inner
from immunax.inner.state import TrainState
from immunax.inner.step import Scalars, SlopeAt, train_step


def begin(
    optimizers: Mapping[str, optax.GradientTransformation], trained: Any, held: Any = None, key: Any = None
) -> TrainState:
    """The state before the first step; its ``optimizer`` holds one state by each name."""
    states = {name: optimizer.init(trained) for name, optimizer in optimizers.items()}
    return inner.begin(optax.identity(), trained, held, key)._replace(optimizer=states)


def take_turns(
    turns: Mapping[str, tuple[SlopeAt, optax.GradientTransformation]], state: TrainState, batch: Any
) -> tuple[TrainState, Scalars]:
    """One step of as many updates as there are turns, each where the one before it left the weights.

    Args:
      turns: in their order, by the names that :func:`begin` was given.
      state: counted on by one.
      batch: of the whole step.

    Returns:
      The state after it, and scalars: ``loss``, the sum of all; ``grad_norm``, of all gradients together, and of each as
      ``NAME/grad_norm``; and those of the losses.
    """
    states = dict(cast(Mapping[str, Any], state.optimizer))
    losses, norms, seen = [], {}, {}
    for name, (slope_at, optimizer) in turns.items():
        moved, metrics = train_step(slope_at, optimizer, state._replace(optimizer=states[name]), batch)
        states[name], state = moved.optimizer, moved._replace(step=state.step)
        losses.append(metrics.pop("loss"))
        norms[f"{name}/grad_norm"] = metrics.pop("grad_norm")
        seen |= metrics
    loss, norm = jnp.stack(losses).sum(), jnp.linalg.norm(jnp.stack(list(norms.values())))
    return state._replace(step=state.step + 1, optimizer=states), {"loss": loss, "grad_norm": norm, **norms, **seen}

"""One member of a population: a descent led by data, which stops itself where it diverges.

What differs between members is data, so one compiled program serves them all. A schedule becomes a table of rates, one a
step; the optimizer is built anew in each step with that step's rate as its constant learning rate, which leaves the
structure of its state as it is. A member whose loss or weights are no longer finite stays at its last finite state.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.data.batches import Array
from immunax.inner import adapt
from immunax.inner.adapt import Descent, Loss

FLAT = {"schedule": "constant", "warmup": 0.0}
"""Fields of an optimizer that a table of rates stands for, as they are where the rate is constant."""

HEALTHY = -1
"""``Progress.diverged_at`` of a member that has not diverged."""


class Track(NamedTuple):
    """What leads a member through K steps.

    Attributes:
      rates: ``[K]`` learning rates, from :func:`rates`.
      settings: fields of the optimizer that differ between members, by name, scalars.
      batches: a pytree with leading axis K.
    """

    rates: Array
    settings: Mapping[str, Array]
    batches: Any


class Opening(NamedTuple):
    """A step's loss and gradient, of the weights before it."""

    loss: jax.Array
    gradient: Any


class Progress(NamedTuple):
    """A member on its way.

    Attributes:
      descent: its weights, the last finite ones, and its optimizer state, which means nothing after a divergence.
      steps: int32, steps it was led through, those after it diverged included.
      diverged_at: int32, the step (from 0) that was not finite and was not taken, or ``HEALTHY``.
    """

    descent: Descent
    steps: jax.Array
    diverged_at: jax.Array

    @property
    def diverged(self) -> jax.Array:
        """Bool: frozen."""
        return self.diverged_at != HEALTHY


def rates(optimizer: Any, steps: int) -> jax.Array:
    """The learning rates ``[K]`` of an optimizer of :mod:`immunax.inner.optimizers` over a run of K ``steps``."""
    return jnp.asarray(jax.vmap(optimizer.rate(steps))(jnp.arange(steps)), jnp.float32)


def begin(optimizer: Any, settings: Mapping[str, Array], weights: Any) -> Progress:
    """A member before its first step.

    Args:
      optimizer: a dataclass of :mod:`immunax.inner.optimizers`.
      settings: as in :class:`Track`.
      weights: what is trained.
    """
    descent = adapt.start(_tuned(optimizer, settings, 0.0).build(1), weights)
    return Progress(descent, jnp.int32(0), jnp.int32(HEALTHY))


def follow(
    loss: Loss, optimizer: Any, progress: Progress, track: Track, opening: Opening | None = None
) -> tuple[Progress, jax.Array]:
    """K steps in one scan.

    Args:
      loss: ``loss(weights, batch) -> scalar``.
      optimizer: a dataclass of :mod:`immunax.inner.optimizers`; the track gives its rate and the fields it overrides.
      progress: where to go on from.
      track: of K steps, K at least 1.
      opening: of the first step, where it is known; the scan then takes the others.

    Returns:
      The member after K steps, and ``[K]`` losses, each taken before its step: NaN after the step of divergence.
    """
    count = track.rates.shape[0]

    def move(progress: Progress, rate: jax.Array, opening: Opening) -> tuple[Progress, jax.Array]:
        value, gradient = opening
        tuned = _tuned(optimizer, track.settings, rate).build(count)
        descent = adapt.update(tuned, progress.descent, gradient)
        healthy = ~progress.diverged
        finite = jnp.isfinite(value) & _finite(descent.weights)
        # The optimizer's state of a frozen member is never used again: holding it too would cost two passes over it.
        kept = jax.tree.map(
            lambda new, old: jnp.where(healthy & finite, new, old).astype(old.dtype),
            descent.weights,
            progress.descent.weights,
        )
        diverged_at = jnp.where(healthy & ~finite, progress.steps, progress.diverged_at)
        after = Progress(descent._replace(weights=kept), progress.steps + 1, diverged_at)
        return after, jnp.where(healthy, value, jnp.nan)

    def step(progress: Progress, part: tuple[jax.Array, Any]) -> tuple[Progress, jax.Array]:
        rate, batch = part
        return move(progress, rate, Opening(*jax.value_and_grad(loss)(progress.descent.weights, batch)))

    if opening is None:
        return jax.lax.scan(step, progress, (track.rates, track.batches))
    progress, first = move(progress, track.rates[0], opening)
    progress, losses = jax.lax.scan(step, progress, jax.tree.map(lambda leaf: leaf[1:], (track.rates, track.batches)))
    return progress, jnp.concatenate([first[None], losses])


def template(optimizer: Any, names: Iterable[str]) -> Any:
    """An optimizer without what a track says of it, equal for all members of one program.

    Args:
      optimizer: a dataclass of :mod:`immunax.inner.optimizers`.
      names: fields that tracks set.
    """
    return _tuned(optimizer, dict.fromkeys(names, 0.0), 0.0)


def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _tuned(optimizer: Any, settings: Mapping[str, Any], rate: jax.Array | float) -> Any:
    # Not dataclasses.replace: its checks compare numbers, which traced ones cannot be. They ran on the members' own.
    tuned = copy.copy(optimizer)
    for name, value in {**settings, "learning_rate": rate, **FLAT}.items():
        object.__setattr__(tuned, name, value)
    return tuned

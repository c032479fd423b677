"""One attack on one model, from point to point of its course: a fine-tuning is a population of one."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.attacks.attack import Edit, FineTuning
from immunax.campaign.population import attacked
from immunax.models.model import Model, Params


class Point(NamedTuple):
    """An attack on its way.

    Attributes:
      step: steps done.
      losses: ``[step]``, before every one, nats; NaN after a divergence.
      weights: attacked ones, plain or adapted.
    """

    step: int
    losses: np.ndarray
    weights: Params


def course(
    attack: FineTuning | Edit, material: Any, model: Model, params: Params, key: jax.Array, times: int = 1
) -> Iterator[Point]:
    """Attacks one set of weights.

    Args:
      attack: a fine-tuning, or an edit.
      material: of a fine-tuning, its :class:`~immunax.campaign.programs.Program`; of an edit, what it reads.
      model: static.
      params: plain weights; untouched.
      key: of all that is random.
      times: into how many equal parts the course of a fine-tuning is cut; the largest divisor of its steps up to it is used.

    Yields:
      The attack after each part; an edit has one.
    """
    if isinstance(attack, Edit):
        weights, losses = edited(attack, model, params, material, jax.random.split(key, 3)[0])
        yield Point(len(losses), np.asarray(losses), weights)
        return
    for turn in attacked((material,), model, params, key[None], times=times):
        yield Point(turn.step, turn.losses[0], turn.weights(0))


@partial(jax.jit, static_argnums=(0, 1))
def edited(attack: Edit, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
    """What an edit makes of weights, and its losses ``[K]``, as one program."""
    return attack.edit(model, params, material, key)

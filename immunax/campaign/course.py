"""One attack on one model, from point to point of its course: a fine-tuning is a population of one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from immunax.attacks.attack import Edit, FineTuning
from immunax.campaign.population import attacked
from immunax.inner.context import check_context
from immunax.models.flops import training_flops
from immunax.models.model import Model, Params
from immunax.runtime import console, pace
from immunax.runtime.jaxpr_flops import matmul_flops
from immunax.runtime.mesh import device_count, mesh_of
from immunax.runtime.performance import Meter
from immunax.runtime.phase import Work
from immunax.runtime.together import host

PHASE = "edit"
"""What the accounts of a run call an attack that is no fine-tuning."""


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
        yield Point(len(losses), host(losses), weights)
        return
    for turn in attacked((material,), model, params, key[None], times=times):
        yield Point(turn.step, turn.losses[0], turn.weights(0))


def paid(
    attack: FineTuning | Edit, material: Any, model: Model, params: Params, key: jax.Array, steps: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """What a course has cost after some numbers of steps.

    Args:
      attack, material, model, params, key: as for :func:`course`.
      steps: S numbers; an edit, which comes in one piece, has 0 and any other one.

    Returns:
      Different examples trained on, and FLOPs, ``[S]`` each.
    """
    if isinstance(attack, Edit):
        whole = edit_flops(attack, material, model, params, key)
        done = np.arange(len(steps)) > 0
        return done * float(attack.samples), done * whole
    samples = [material.samples[0][step - 1] if step else 0 for step in steps]
    trained_on = [material.trained_on(0, 0, step, False) for step in steps]
    flops = [training_flops(model.config, sizes, attack.tuning.lora) for sizes in trained_on]
    return np.array(samples, np.float64), np.array(flops)


def edit_flops(attack: Edit, material: Any, model: Model, params: Params, key: jax.Array) -> float:
    """FLOPs of an edit's matrix products, read off its program."""
    plain = replace(model, attention="blocks")  # the same number on every platform
    return matmul_flops(jax.make_jaxpr(partial(attack.edit, plain))(params, material, key))


def edited(attack: Edit, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
    """What an edit makes of weights, and its losses ``[K]``, as one program; says so where it leaves them as they were.

    Raises:
      UserError: a dialog is longer than the model's context.
    """
    check_context(model, "a dialog that the attack reads", material)
    pace.worked()
    meter = Meter(PHASE, "edit", device_count(mesh_of(params)), model.dtype)
    with meter.running():
        weights, losses, same = jax.block_until_ready(_edited(attack, model, params, material, key))
        meter.done(lambda: Work(1))
    if bool(same):
        console.note(f"The attack {type(attack).__name__} leaves the weights as they are: {attack.unchanged}.")
    return weights, losses


@partial(jax.jit, static_argnums=(0, 1))
def _edited(
    attack: Edit, model: Model, params: Params, material: Any, key: jax.Array
) -> tuple[Params, jax.Array, jax.Array]:
    weights, losses = attack.edit(model, params, material, key)
    if jax.tree.structure(weights) != jax.tree.structure(params):
        return weights, losses, jnp.array(False)
    pairs = zip(*map(jax.tree.leaves, (weights, params)), strict=True)
    return weights, losses, jnp.stack([jnp.array_equal(*pair) for pair in pairs]).all()

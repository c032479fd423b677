"""Runs an attack that is no fine-tuning, with probes before and after it."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import traverse_util

from immunax.attacks.attack import AttackData, Edit, Report, Tampered, Trace
from immunax.models.generate import generate
from immunax.models.model import Model, Params


def run_edit(
    attack: Edit, model: Model, params: Params, data: AttackData, key: jax.Array, report: Report | None = None
) -> Tampered:
    """The attack, and what the model answers before and after it.

    Args:
      attack: the attack.
      model: static.
      params: plain weights; untouched.
      data: its material and the probes.
      key: of what is random in it, and of sampled answers.
      report: told every loss, once the attack is over.
    """
    edit_key, first_key, last_key = jax.random.split(key, 3)
    attacked, losses = attack.edit(model, params, data.material, edit_key)
    if report is not None:
        jax.lax.map(lambda loss: jax.debug.callback(report, loss), losses)
    answers = [
        generate(model, weights, *data.probes, data.stop, data.decoding, subkey)
        for weights, subkey in ((params, first_key), (attacked, last_key))
    ]
    return Tampered(attacked, Trace(losses, jnp.array([0, len(losses)]), jnp.stack(answers)))


def nothing() -> jax.Array:
    """The losses ``[0]`` of an attack that optimises nothing."""
    return jnp.zeros(0)


def matrices(params: Params) -> dict[tuple[str, ...], jax.Array]:
    """The weight matrices of the layers by path, ``[L, in, out]`` each."""
    flat = traverse_util.flatten_dict(params)
    return {path: cast(jax.Array, leaf) for path, leaf in flat.items() if path[0] == "layers" and path[-1] == "kernel"}


def with_matrices(params: Params, changed: dict[tuple[str, ...], jax.Array]) -> Params:
    """The same weights with some leaves replaced."""
    return traverse_util.unflatten_dict({**traverse_util.flatten_dict(params), **changed})

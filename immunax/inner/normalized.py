"""A simulated attack: one gradient step of a given length, and what it does to a loss."""

from dataclasses import replace
from typing import Any

import jax
import optax

from immunax.inner.adapt import Estimator, adapt
from immunax.inner.losses import answer_loss
from immunax.inner.step import Loss
from immunax.models.kernels.choice import MASKED
from immunax.models.model import Model, Params


def normalized_step(length: float) -> optax.GradientTransformation:
    """``φ − α · g / (‖g‖ + 1e-7)``, the norm over all weights; however steep the loss, a step has the same length.

    Args:
      length: α, in the Euclidean norm of the weights.
    """
    return optax.chain(optax.normalize_by_update_norm(eps=1e-7), optax.sgd(length))


def attacked_once(loss: Loss, params: Params, batch: Any, length: float, estimator: Estimator) -> Params:
    """The weights one :func:`normalized_step` of an attacker away.

    Args:
      loss: the attacker's, of weights on a batch.
      params: θ.
      batch: the attacker's, without a leading axis of steps.
      length: α.
      estimator: how a gradient passes from the result to θ.

    Returns:
      φ, of the shapes of θ.
    """
    attack = adapt(loss, normalized_step(length), 1, estimator)
    return attack(params, jax.tree.map(lambda leaf: leaf[None], batch))


def fine_answer_loss(model: Model) -> Loss:
    """The cross entropy of answers in float32, which tells weights apart that half precision rounds to the same.

    A short step changes most weights by less than the spacing of bfloat16 numbers, and the loss by less than its rounding errors.
    Accelerators are asked for products of whole float32 numbers, which is not their default.

    Args:
      model: static; whose dtype is kept where it is as fine, and whose attention where it is no kernel.

    Returns:
      ``loss(params, batch)``, in nats per token.
    """
    dtype = "float32" if model.dtype == "bfloat16" else model.dtype
    fine = replace(model, dtype=dtype, attention=model.attention if model.attention in MASKED else "xla")

    def loss(params: Params, batch: Any) -> jax.Array:
        with jax.default_matmul_precision("float32"):
            return answer_loss(fine, params, batch)

    return loss

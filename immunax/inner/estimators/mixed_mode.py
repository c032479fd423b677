"""A gradient whose own derivative runs forward over reverse."""

from collections.abc import Callable
from typing import Any

import jax

from immunax.inner.adapt import Loss
from immunax.inner.trained import with_trained
from immunax.models.lora import Adapted
from immunax.models.model import Params


def forward_over_reverse(loss: Loss) -> Callable[[Any, Params, Any], Any]:
    """The gradient of a loss with respect to the trained part, made for differentiation.

    Its vector-Jacobian product is a Hessian-vector product, since Hessians are symmetric:
    ``vᵀ ∂(∇_t L)/∂(t, base) = d/dε ∇_(t, base) L(t + εv)``, one forward pass over a reverse one (Kemaev et al. 2025,
    arXiv:2505.00793, section 3).

    Args:
      loss: of whole weights on a batch. It may close over arrays; those get no gradient here.

    Returns:
      ``gradient(part, params, batch)``, of the shapes of ``part``; ``params`` gives what is held. The batch gets none.
    """

    @jax.custom_vjp
    def gradient(part, params, batch):
        return jax.grad(lambda each: loss(with_trained(params, each), batch))(part)

    def forward(part, params, batch):
        return gradient(part, params, batch), (part, params, batch)

    def backward(residual, direction):
        part, params, batch = residual
        return *hessian_product(loss, part, params, batch, direction), None

    gradient.defvjp(forward, backward)
    return gradient


def hessian_product(loss: Loss, part: Any, params: Params, batch: Any, direction: Any) -> tuple[Any, Params | None]:
    """``∂(∇_t L · v)/∂(t, held)``, forward over reverse.

    Args:
      loss: of whole weights on a batch.
      part: t, where the derivative is taken.
      params: the whole weights; what of them is held.
      batch: data.
      direction: v, of the shapes of ``part``.

    Returns:
      Of the shapes of ``part``, ``∇²_tt L v``; and of the shapes of ``params``, ``∇²_ht L v``, None where nothing is held.
    """
    if not isinstance(params, Adapted):
        slope = jax.grad(lambda each: loss(with_trained(params, each), batch))
        return jax.jvp(slope, (part,), (direction,))[1], None
    both = jax.grad(lambda each, held: loss(with_trained(held, each), batch), (0, 1))
    return jax.jvp(lambda each: both(each, params), (part,), (direction,))[1]

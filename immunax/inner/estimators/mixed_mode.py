"""A gradient whose own derivative runs forward over reverse."""

from typing import Any

import jax

from immunax.inner.step import Loss, Slope, SlopeAt, slope_of
from immunax.inner.trainable import WHOLE


def forward_over_reverse(loss: Loss) -> SlopeAt:
    """The slope of a loss by what trains, made for differentiation.

    The gradient's vector-Jacobian product is a Hessian-vector product, since Hessians are symmetric:
    ``vᵀ ∂(∇_t L)/∂(t, held) = d/dε ∇_(t, held) L(t + εv)``, one forward pass over a reverse one (Kemaev et al. 2025,
    arXiv:2505.00793, section 3).

    Args:
      loss: of whole weights on a batch. It may close over arrays; those get no gradient here, nor does the batch. The slope's
        own loss is a constant.
    """

    @jax.custom_vjp
    def slope_at(trained, held, batch):
        return slope_of(loss)(trained, held, batch)

    def forward(trained, held, batch):
        return slope_at(trained, held, batch), (trained, held, batch)

    def backward(residual, cotangent: Slope):
        trained, held, batch = residual
        return *hessian_product(loss, trained, held, batch, cotangent.gradient), None

    slope_at.defvjp(forward, backward)
    return slope_at


def hessian_product(loss: Loss, trained: Any, held: Any, batch: Any, direction: Any) -> tuple[Any, Any]:
    """``∂(∇_t L · v)/∂(t, held)``, forward over reverse.

    Args:
      loss: of whole weights on a batch.
      trained: t, where the derivative is taken.
      held: what else the weights are made of.
      batch: data.
      direction: v, of the shapes of ``trained``.

    Returns:
      ``∇²_tt L v``, of the shapes of ``trained``, and ``∇²_ht L v``, of those of ``held``.
    """
    both = jax.grad(lambda trained, held: loss(WHOLE.join(trained, held), batch), (0, 1))
    return jax.jvp(lambda trained: both(trained, held), (trained,), (direction,))[1]

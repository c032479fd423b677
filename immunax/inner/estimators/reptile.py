"""The Reptile estimator: the way the inner loop went is the gradient."""

from dataclasses import dataclass
from typing import Any

import jax

from immunax.inner.adapt import Adaptation, Estimator
from immunax.inner.estimators.straight_through import advance
from immunax.inner.step import Loss
from immunax.inner.trainable import WHOLE
from immunax.models.model import Params


@dataclass(frozen=True)
class Reptile(Estimator):
    """``scale · (θ − φ_K)`` as the gradient at θ, whatever is done with φ_K (Nichol et al. 2018, arXiv:1803.02999).

    Descending it takes θ towards φ_K: the outer loss that it stands for is the inner one. A defender, who wants to get
    away from the attacker, takes a negative scale. No outer loss is differentiated.

    Attributes:
      scale: factor of the gradient; their ``1 / α`` for an inner learning rate α.
    """

    scale: float = 1.0

    def follow(
        self, inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`~immunax.inner.adapt.Adaptation.along`.

        Raises:
          ValueError: there are outer losses along the way, whose gradients this estimator would drop.
        """
        if outer is not None:
            raise ValueError("Reptile's gradient is the way of the inner loop: it has no use for losses along it")
        state, total = advance(inner, params, batches, None, None)
        return _pulled(params, WHOLE.join(state.trained, WHOLE.split(params)[1]), self.scale), total


@jax.custom_vjp
def _pulled(source: Params, end: Params, scale: float) -> Params:
    del source, scale
    return end


def _forward(source, end, scale):
    return end, (jax.tree.map(lambda at, to: scale * (at - to), source, end),)


def _backward(residual, cotangent):
    del cotangent
    return residual[0], None, None


_pulled.defvjp(_forward, _backward)

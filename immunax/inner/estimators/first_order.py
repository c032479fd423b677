"""The first-order estimator: the gradient at φ, taken for the gradient at θ."""

from dataclasses import dataclass
from typing import Any

import jax

from immunax.inner.adapt import Adaptation, Estimator
from immunax.inner.estimators.straight_through import advance, straight_through
from immunax.inner.step import Loss
from immunax.inner.trainable import WHOLE
from immunax.models.model import Params


@dataclass(frozen=True)
class FirstOrder(Estimator):
    """``∂φ_K/∂θ = I`` (first-order MAML, Finn et al. 2017, arXiv:1703.03400).

    Along a trajectory this is TAR's estimator (Tamirisa et al. 2024, arXiv:2408.00761): the sum of the outer gradients at
    the φ_k. Memory does not depend on K: nothing of the inner loop is kept for a backward pass.
    """

    def follow(
        self, inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`~immunax.inner.adapt.Adaptation.along`."""
        state, total = advance(inner, params, batches, outer, checks)
        trained, held = WHOLE.split(params)
        return WHOLE.join(straight_through(state.trained, trained), held), total

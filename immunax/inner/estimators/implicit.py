"""The implicit estimator: the gradient at the solution of a proximal problem."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from immunax.inner.adapt import Adaptation, Estimator
from immunax.inner.estimators.mixed_mode import hessian_product
from immunax.inner.state import begin
from immunax.inner.step import Loss, Slope, length, scan_steps
from immunax.inner.trainable import WHOLE
from immunax.models.model import Params


@dataclass(frozen=True)
class Implicit(Estimator):
    """Implicit MAML (Rajeswaran et al. 2019, arXiv:1909.04630).

    The inner loop descends ``L(φ) + damping/2 ‖φ − θ‖²``, L the mean over the K batches. Where it has converged,
    ``∂φ/∂θ = (I + ∇²L(φ) / damping)⁻¹``, which conjugate gradients apply with K Hessian-vector products a step. How
    well the loop has converged bounds how good the gradient is; its path does not matter, and none of it is kept.

    Attributes:
      damping: strength of the proximal term; above the most negative curvature of L, or the system is indefinite.
      cg_steps: conjugate gradient steps at most.
      tolerance: they stop at this relative residual.
    """

    damping: float = 1.0
    cg_steps: int = 10
    tolerance: float = 1e-8

    def __post_init__(self):
        if self.damping <= 0 or self.cg_steps < 1:
            raise ValueError(f"damping={self.damping}, cg_steps={self.cg_steps}: expected both above 0")

    def follow(
        self, inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`~immunax.inner.adapt.Adaptation.along`.

        Raises:
          ValueError: there are outer losses before the end, where there is no solution to differentiate.
        """
        if checks is not None and length(checks) > 1:
            raise ValueError("the implicit gradient exists at the end of the inner loop alone: give one check")
        trained, held = WHOLE.split(params)
        end = WHOLE.join(self._solution(inner)(trained, held, batches), held)
        if outer is None:
            return end, jnp.zeros(())
        return end, outer(end, jax.tree.map(lambda leaf: leaf[0], checks))

    def _solution(self, inner: Adaptation) -> Callable[[Any, Any, Any], Any]:
        @jax.custom_vjp
        def solution(trained, held, batches):
            def proximal(part, held, batch):
                away = optax.tree.norm(optax.tree.sub(part, trained), squared=True)
                return inner.loss(WHOLE.join(part, held), batch) + 0.5 * self.damping * away

            def slope_at(part, held, batch):
                return Slope(*jax.value_and_grad(proximal)(part, held, batch))

            return scan_steps(slope_at, inner.optimizer, begin(inner.optimizer, trained, held), batches)[0].trained

        def forward(trained, held, batches):
            end = solution(trained, held, batches)
            return end, (end, held, batches)

        def backward(residual, cotangent):
            end, held, batches = residual

            def product(direction):
                """The mean over the batches of ``∇²L v``, and of what it does to what is held."""

                def add(total, batch):
                    each = hessian_product(inner.loss, end, held, batch, direction)
                    return jax.tree.map(lambda so_far, new: so_far + new / inner.steps, total, each), None

                return jax.lax.scan(add, optax.tree.zeros_like((direction, held)), batches)[0]

            def damped(direction):
                return optax.tree.add_scale(product(direction)[0], self.damping, direction)

            solved, _ = cg(damped, cotangent, tol=self.tolerance, maxiter=self.cg_steps)
            return optax.tree.scale(self.damping, solved), optax.tree.scale(-1.0, product(solved)[1]), None

        solution.defvjp(forward, backward)
        return solution

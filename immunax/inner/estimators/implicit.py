"""The implicit estimator: the gradient at the solution of a proximal problem."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from immunax.inner.adapt import Adaptation, Loss, descend, length, start
from immunax.inner.estimators.mixed_mode import hessian_product
from immunax.inner.trained import trained, with_trained
from immunax.models.lora import Adapted
from immunax.models.model import Params


@dataclass(frozen=True)
class Implicit:
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
        end = self._solution(inner)(params, batches)
        if outer is None:
            return end, jnp.zeros(())
        return end, outer(end, jax.tree.map(lambda leaf: leaf[0], checks))

    def _solution(self, inner: Adaptation) -> Callable[[Params, Any], Params]:
        def proximal(fixed, part, batch):
            away = optax.tree.norm(optax.tree.sub(part, trained(fixed)), squared=True)
            return inner.loss(with_trained(fixed, part), batch) + 0.5 * self.damping * away

        @jax.custom_vjp
        def solution(params, batches):
            begin = start(inner.optimizer, trained(params))
            return with_trained(params, descend(partial(proximal, params), inner.optimizer, begin, batches)[0].weights)

        def forward(params, batches):
            end = solution(params, batches)
            return end, (end, batches)

        def backward(residual, cotangent):
            end, batches = residual

            def product(direction):
                """The mean over the batches of ``∇²L v``, and of what it does to the weights that are held."""

                def add(total, batch):
                    each = hessian_product(inner.loss, trained(end), end, batch, direction)
                    return jax.tree.map(lambda so_far, new: so_far + new / inner.steps, total, each), None

                held = optax.tree.zeros_like(end) if isinstance(end, Adapted) else None
                return jax.lax.scan(add, (optax.tree.zeros_like(direction), held), batches)[0]

            def damped(direction):
                return optax.tree.add_scale(product(direction)[0], self.damping, direction)

            solved, _ = cg(damped, trained(cotangent), tol=self.tolerance, maxiter=self.cg_steps)
            here = optax.tree.scale(self.damping, solved)
            if not isinstance(end, Adapted):
                return here, None
            return with_trained(optax.tree.sub(cotangent, product(solved)[1]), here), None

        solution.defvjp(forward, backward)
        return solution

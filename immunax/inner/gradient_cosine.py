"""The angle between two gradients, as a loss without second derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from immunax.inner.estimators.straight_through import with_gradient

Objective = Callable[[Any], jax.Array]
"""``objective(weights) -> scalar``."""


def gradient_cosine(first: Objective, second: Objective, weights: Any, radius: float) -> jax.Array:
    """``cos(∇first, ∇second)``, whose gradient is estimated by differences of gradients.

    With unit gradients u, v of norms a, b and cosine c, the gradient is ``∇²first (v − c u) / a + ∇²second (u − c v) / b``.
    Each Hessian-vector product ``∇²f d`` is taken as ``(∇f(θ + ε d) − ∇f(θ)) / ε``, as Wang et al. 2025 (arXiv:2505.12186)
    do. The error grows with ε, by the third derivatives, and with the rounding of a gradient over ε: it needs float32.

    The cost is four gradients. No activation outlives its own gradient; a few trees of the size of the weights do.

    Args:
      first, second: the losses; they may close over data.
      weights: θ, any pytree.
      radius: ε, the length of a unit direction in the weights.

    Returns:
      A scalar in [−1, 1], for reverse mode.
    """
    at = jax.lax.stop_gradient(weights)
    slopes = jax.grad(first)(at), jax.grad(second)(at)
    norms = optax.tree.norm(slopes[0]), optax.tree.norm(slopes[1])
    units = tuple(optax.tree.scale(1 / norm, slope) for norm, slope in zip(norms, slopes, strict=True))
    cosine = jnp.asarray(optax.tree.vdot(*units))

    def turn(objective: Objective, slope: Any, norm: jax.Array, unit: Any, other: Any) -> Any:
        direction = optax.tree.add_scale(other, -cosine, unit)
        moved = jax.grad(objective)(optax.tree.add_scale(at, radius, direction))
        return optax.tree.scale(1 / (radius * norm), optax.tree.sub(moved, slope))

    gradient = optax.tree.add(turn(first, slopes[0], norms[0], *units), turn(second, slopes[1], norms[1], *units[::-1]))
    return with_gradient(cosine, weights, gradient)

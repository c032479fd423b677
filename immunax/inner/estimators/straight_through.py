"""Values whose gradient is given: the step that every first-order estimator rests on."""

from typing import Any

import jax
import jax.numpy as jnp

from immunax.inner.adapt import Adaptation, Descent, Loss, descend, length, split, start
from immunax.inner.trained import trained, with_trained
from immunax.models.model import Params


def straight_through(value: Any, source: Any) -> Any:
    """The leaves of ``value``, with the gradient of ``source``'s: what reaches the one is passed to the other."""
    return jax.tree.map(lambda to, of: jax.lax.stop_gradient(to) + (of - jax.lax.stop_gradient(of)), value, source)


@jax.custom_vjp
def with_gradient(value: jax.Array, source: Any, gradient: Any) -> jax.Array:
    """The scalar ``value``, whose gradient with respect to ``source`` is ``gradient``, a tree of its shapes. Reverse mode."""
    del source, gradient
    return value


def _forward(value, source, gradient):
    del source
    return value, gradient


def _backward(gradient, cotangent):
    return None, jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), gradient), None


with_gradient.defvjp(_forward, _backward)


def advance(
    inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
) -> tuple[Descent, jax.Array]:
    """Inner steps outside the gradient, and the outer losses on their way to first order.

    ``∂/∂θ Σ_s outer(φ_s)`` is taken as ``Σ_s ∇outer(φ_s)``. The sum is accumulated as the loop runs, so that memory does not
    grow with K.

    Args:
      inner: the loop.
      params: θ.
      batches: a pytree with leading axis K.
      outer: of whole weights on a check, or None.
      checks: a pytree with leading axis S; None without ``outer``.

    Returns:
      The descent after K steps, cut from the gradient, and the sum with its first-order gradient.
    """
    fixed = jax.lax.stop_gradient(params)

    def loss(part, batch):
        return inner.loss(with_trained(fixed, part), batch)

    begin = start(inner.optimizer, trained(fixed))
    if outer is None:
        return jax.lax.stop_gradient(descend(loss, inner.optimizer, begin, batches)[0]), jnp.zeros(())

    def segment(carry, part):
        descent, total, slope = carry
        batches, check = part
        descent, _ = descend(loss, inner.optimizer, descent, batches)
        value, gradient = jax.value_and_grad(outer)(with_trained(fixed, descent.weights), check)
        return (descent, total + value, jax.tree.map(jnp.add, slope, gradient)), None

    parts = (split(batches, length(checks)), checks)
    empty = jax.tree.map(jnp.zeros_like, fixed)
    dtype = jax.eval_shape(outer, fixed, jax.tree.map(lambda leaf: leaf[0], checks)).dtype
    (descent, total, slope), _ = jax.lax.scan(segment, (begin, jnp.zeros((), dtype), empty), parts)
    return jax.lax.stop_gradient(descent), with_gradient(total, params, slope)

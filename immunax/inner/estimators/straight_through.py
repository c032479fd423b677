"""Values whose gradient is given: the step that every first-order estimator rests on."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from immunax.inner.adapt import Adaptation
from immunax.inner.state import TrainState, begin
from immunax.inner.step import Loss, length, scan_steps, slope_of, split
from immunax.inner.trainable import WHOLE
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
) -> tuple[TrainState, jax.Array]:
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
      The state after K steps, cut from the gradient, and the sum with its first-order gradient.
    """
    fixed = jax.lax.stop_gradient(params)
    start = begin(inner.optimizer, *WHOLE.split(fixed))
    lead = partial(scan_steps, slope_of(inner.loss), inner.optimizer)
    if outer is None:
        return jax.lax.stop_gradient(lead(start, batches)[0]), jnp.zeros(())

    def segment(carry, part):
        moving, total, slope = carry
        batches, check = part
        state, _ = lead(moving._replace(held=start.held), batches)
        value, gradient = jax.value_and_grad(outer)(WHOLE.join(state.trained, state.held), check)
        return (state._replace(held=None), total + value, jax.tree.map(jnp.add, slope, gradient)), None

    parts = (split(batches, length(checks)), checks)
    empty = jax.tree.map(jnp.zeros_like, fixed)
    dtype = jax.eval_shape(outer, fixed, jax.tree.map(lambda leaf: leaf[0], checks)).dtype
    carry = (start._replace(held=None), jnp.zeros((), dtype), empty)
    (state, total, slope), _ = jax.lax.scan(segment, carry, parts)
    return jax.lax.stop_gradient(state._replace(held=start.held)), with_gradient(total, params, slope)

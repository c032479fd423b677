"""Soft caps of logits (Gemma 2, arXiv:2408.00118, section 2)."""

import jax
import jax.numpy as jnp


def soft_cap(values: jax.Array, cap: float | None) -> jax.Array:
    """``cap · tanh(values / cap)``, which stays within ±cap; the values themselves where ``cap`` is None."""
    return values if cap is None else cap * jnp.tanh(values / cap)


def cap_slope(capped: jax.Array, cap: float | None) -> jax.Array | float:
    """Derivative of :func:`soft_cap`, from what it gave."""
    return 1.0 if cap is None else 1.0 - jnp.square(capped / cap)

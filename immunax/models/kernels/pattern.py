"""What every kernel computes: a layer's causal attention within segments."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from immunax.models.attention import attention, causal_mask


@dataclass(frozen=True)
class Pattern:
    """Of one layer. Static.

    Attributes:
      scale: of the scores.
      cap: soft cap of the scores, None for none.
      window: how many tokens a token reads, itself included; None for all before it.
    """

    scale: float
    cap: float | None = None
    window: int | None = None


def dense(pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """What every kernel computes, with all scores written, and a derivative of any order.

    Args:
      pattern: static.
      query: ``[B, T, H, D]``.
      key, value: ``[B, T, K, D]``, K a divisor of H.
      segment_ids: ``[B, T]``, as :func:`~immunax.models.attention.causal_mask` reads them.

    Returns:
      ``[B, T, H, D]``.
    """
    return attention(query, key, value, causal_mask(segment_ids, pattern.window), pattern.scale, pattern.cap)


def lengthened(values: jax.Array, axis: int, multiple: int) -> jax.Array:
    """Zeros behind the end of an axis, up to a multiple: of segment numbers, padding, which reads itself."""
    missing = -values.shape[axis] % multiple
    return (
        jnp.pad(values, [(0, missing if place == axis else 0) for place in range(values.ndim)]) if missing else values
    )


def stretches(segment_ids: jax.Array) -> jax.Array:
    """The number of the stretch of its row that each token belongs to, from 0, ``[B, T]``."""
    own = jnp.abs(segment_ids)
    return jnp.pad(jnp.cumsum(own[:, 1:] != own[:, :-1], axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))

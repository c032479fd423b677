"""Attention alone, forward and backward, by each of the package's implementations."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from accelerated.models import dtype_on
from accelerated.work import Work, random_key
from immunax.models.attention import causal_attention, causal_mask
from immunax.models.kernels.fused import KERNELS, fused_attention
from immunax.models.kernels.pattern import Pattern, dense

Attention = Callable[[Pattern, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Of a pattern, queries ``[B, T, H, D]``, keys and values ``[B, T, K, D]``, and segment numbers ``[B, T]``."""


def blocks(pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Plain XLA by blocks of queries."""
    return causal_attention(query, key, value, causal_mask(segment_ids), pattern.scale)


def fused(
    kernel: str, pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """A kernel, told of the segments as a model tells it once for all layers."""
    return fused_attention(kernel, pattern, query, key, value, KERNELS[kernel].read(segment_ids))


IMPLEMENTATIONS: Mapping[str, Attention] = {
    "immunax xla": dense,
    "immunax blocks": blocks,
    "immunax cudnn": partial(fused, "cudnn"),
    "immunax splash": partial(fused, "splash"),
}
"""By side."""


def attention_work(sizes: Mapping[str, Any], platform: str, side: str) -> Work:
    """One forward and backward pass over rows of one segment."""
    rows, length, heads, size = (sizes[name] for name in ("rows", "length", "heads", "head_dim"))
    shapes = [(rows, length, count, size) for count in (heads, sizes["kv_heads"], sizes["kv_heads"], heads)]
    attend = partial(IMPLEMENTATIONS[side], Pattern(size**-0.5))

    def both(query: jax.Array, key: jax.Array, value: jax.Array, gradient: jax.Array, segment_ids: jax.Array) -> Any:
        output, back = jax.vjp(lambda q, k, v: attend(q, k, v, segment_ids), query, key, value)
        return output, back(gradient)

    def inputs(_: Any) -> tuple[jax.Array, ...]:
        keys, dtype = jax.random.split(random_key(0), len(shapes)), dtype_on(platform)
        drawn = (jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True))
        return *drawn, jnp.ones((rows, length), jnp.int32)

    # Two products of [T, T] scores forward and four backward, half of each masked.
    flops = 3 * 2.0 * rows * heads * size * length**2
    return Work(both, lambda: (), inputs, 1, flops, carried=False, calls=sizes["calls"])

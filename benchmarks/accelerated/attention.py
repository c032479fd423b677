"""Attention alone, forward and backward, by each implementation: the one place that names them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from accelerated.work import Work
from immunax.models.attention import causal_attention

_Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Of queries ``[B, T, H, d]``, keys and values ``[B, T, H', d]``."""


def _blocks(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    mask = jnp.tril(jnp.ones((query.shape[1], key.shape[1]), bool))[None, None]
    return causal_attention(query, key, value, jnp.broadcast_to(mask, (len(query), *mask.shape[1:])))


def _splash(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads, size = query.shape[1:]
    mask = masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(heads)])
    attend = kernel.make_splash_mha_single_device(mask)
    wide = (jnp.repeat(each, heads // each.shape[2], axis=2) for each in (key, value))
    by_head = (each.swapaxes(1, 2) for each in (query * size**-0.5, *wide))
    attended: Any = jax.vmap(attend)(*by_head)
    return attended.swapaxes(1, 2)


IMPLEMENTATIONS: Mapping[str, _Attention] = {
    "immunax xla": partial(jax.nn.dot_product_attention, is_causal=True, implementation="xla"),
    "immunax blocks": _blocks,
    "immunax cudnn": partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn"),
    "immunax splash": _splash,
}
"""By side."""


def attention_work(sizes: Mapping[str, Any], platform: str, side: str) -> Work:
    """One forward and backward pass."""
    attend = IMPLEMENTATIONS[side]
    rows, length, heads, size = (sizes[name] for name in ("rows", "length", "heads", "head_dim"))
    shapes = [(rows, length, count, size) for count in (heads, sizes["kv_heads"], sizes["kv_heads"], heads)]
    dtype = "float32" if platform == "cpu" else "bfloat16"

    def both(query: jax.Array, key: jax.Array, value: jax.Array, gradient: jax.Array) -> Any:
        output, back = jax.vjp(attend, query, key, value)
        return output, back(gradient)

    def inputs(_: Any) -> tuple[jax.Array, ...]:
        keys = jax.random.split(jax.random.key(0), len(shapes))
        return tuple(jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True))

    # Two products of [T, T] scores forward and four backward, half of each masked.
    flops = 3 * 2.0 * rows * heads * size * length**2
    return Work(both, lambda: (), inputs, 1, flops, carried=False, calls=sizes["calls"])

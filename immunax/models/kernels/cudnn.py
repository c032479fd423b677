"""cuDNN's fused attention, for NVIDIA GPUs, by JAX's binding of it.

Segments are told by where they begin and how long they are, so that no mask is made (Hopper and later). Before that
architecture the kernel takes a mask. The binding's own functions compact what they are told over all rows, by some twenty small
programs a layer, and before JAX 0.11.2 multiplies keys' offsets by the queries' heads; its primitives are called here with a
fixed number of places for each row, of which those that a row does not use are empty. JAX 0.12 has two options more.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as binding
from jax.custom_batching import custom_vmap

from immunax.models.attention import causal_mask
from immunax.models.kernels.pattern import Pattern, lengthened, stretches

MOST = 17
"""Places of a row: for sixteen examples and the padding behind them."""

_EVEN = 2
"""Tokens that the kernel wants a multiple of."""

_SCORES_AS_THEY_ARE = {"score_mod_name": None, "score_mod_jaxpr": None} if jax.__version_info__ >= (0, 12) else {}


class Reading(NamedTuple):
    """What the kernel is told of B rows, the same for every layer.

    Attributes:
      segment_ids: ``[B, T]``.
      begins: ``[B, M]`` int32, where each stretch begins; T for a place that the row does not use. M is :data:`MOST`.
      queries, keys: ``[B, M]`` int32, how many of its tokens read, and how many are read.
    """

    segment_ids: jax.Array
    begins: jax.Array
    queries: jax.Array
    keys: jax.Array


def read(segment_ids: jax.Array) -> Reading:
    """What the kernel is told. Padding that reads itself is a stretch of its own.

    Args:
      segment_ids: ``[B, T]``; made even.
    """
    segment_ids = lengthened(segment_ids, 1, _EVEN)
    within = stretches(segment_ids)[:, None, :] == jnp.arange(MOST)[:, None]
    queries, keys = (each.sum(axis=2, dtype=jnp.int32) for each in (within, within & (segment_ids >= 0)[:, None, :]))
    begins = jnp.where(queries > 0, jnp.argmax(within, axis=2), segment_ids.shape[1]).astype(jnp.int32)
    return Reading(segment_ids, begins, queries, keys)


def forward(
    pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, *reading: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention, and the logarithm of each query's normaliser, which the backward pass reads.

    Args:
      pattern: static; without a cap.
      query: bfloat16 ``[B, T, H, D]``, T even.
      key, value: ``[B, T, K, D]``, K a divisor of H.
      *reading: the parts of a :class:`Reading`.

    Returns:
      ``[B, T, H, D]`` and float32 ``[B, H, T]``.
    """
    return _merged(_forward, pattern)(query, key, value, *reading)


def backward(
    pattern: Pattern,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    normaliser: jax.Array,
    d_out: jax.Array,
    *reading: jax.Array,
) -> tuple[jax.Array, ...]:
    """The gradients of query, key and value.

    Args:
      pattern, query, key, value, *reading: as :func:`forward` was given them.
      out, normaliser: what it gave.
      d_out: ``[B, T, H, D]``, the gradient of what attention gives.
    """
    return _merged(_backward, pattern)(query, key, value, out, normaliser, d_out, *reading)


@cache
def _merged(function: Callable[..., Any], pattern: Pattern) -> Callable[..., Any]:
    """The function of members' rows all together, where it is mapped over members: the binding maps no offsets."""

    @custom_vmap
    def merged(*inputs: jax.Array) -> Any:
        return function(pattern, *inputs)

    @merged.def_vmap
    def _(members: int, batched: list[bool], *inputs: jax.Array) -> tuple[Any, Any]:
        each = (
            leaf if own else jnp.broadcast_to(leaf, (members, *leaf.shape))
            for leaf, own in zip(inputs, batched, strict=True)
        )
        results = merged(*(leaf.reshape(-1, *leaf.shape[2:]) for leaf in each))
        apart = jax.tree.map(lambda leaf: leaf.reshape(members, -1, *leaf.shape[1:]), results)
        return apart, jax.tree.map(lambda _: True, apart)

    return merged


def _forward(
    pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, *reading: jax.Array
) -> tuple[jax.Array, jax.Array]:
    arrays, options = _given(pattern, query, key, value, Reading(*reading))
    out, normaliser = binding._dot_product_attention_fwd_p.bind(*arrays, is_training=True, **options)
    return out, normaliser


def _backward(
    pattern: Pattern,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    normaliser: jax.Array,
    d_out: jax.Array,
    *reading: jax.Array,
) -> tuple[jax.Array, ...]:
    told = Reading(*reading)
    arrays, options = _given(pattern, query, key, value, told)
    d_query, *others = binding._dot_product_attention_bwd_p.bind(*arrays, normaliser, out, d_out, **options)
    # No token reads these keys, and nothing is written of them.
    read = (told.segment_ids >= 0)[:, :, None, None]
    return d_query, *(jnp.where(read, each, 0) for each in others[:2])


def _given(
    pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, told: Reading
) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
    """What the binding's primitives take: arrays, and what is static."""
    nothing = jnp.zeros(0, query.dtype)
    options = {
        "scale": pattern.scale,
        "seed": 0,
        "dropout_rate": 0.0,
        "layout": binding.AttentionLayout.BTNH.value,
        **_SCORES_AS_THEY_ARE,
    }
    if not binding.check_compute_capability("9.0"):
        masked = {"mask_type": binding.MaskType.NO_MASK, "variadic_args": (True, False), "sliding_window_length": None}
        mask = causal_mask(told.segment_ids, pattern.window)
        bias = jnp.where(mask, 0, jnp.finfo(query.dtype).min / 2).astype(query.dtype)
        return (query, key, value, bias, *[nothing] * 6), options | masked
    offsets = (_offsets(told, each.shape[2] * each.shape[3]) for each in (query, key))
    packed = {
        "mask_type": binding.MaskType.PADDING_CAUSAL,
        "variadic_args": (False, False),
        "sliding_window_length": pattern.window,
    }
    return (query, key, value, nothing, told.queries, told.keys, *offsets, nothing, nothing), options | packed


def _offsets(told: Reading, stride: int) -> jax.Array:
    """Where each stretch of all rows begins, in numbers of the array, and behind the last its end, ``[B, M + 1]``."""
    rows, length = told.segment_ids.shape
    begins = (told.begins + length * jnp.arange(rows, dtype=jnp.int32)[:, None]).reshape(-1)
    # One end is read; the shape tells the binding how many places a row has.
    ends = jnp.full(rows, rows * length, jnp.int32)
    return stride * jnp.concatenate([begins, ends]).reshape(rows, MOST + 1)

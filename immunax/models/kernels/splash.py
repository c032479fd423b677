"""Splash attention, JAX's Pallas kernel for TPUs: blocks that causality or the window hides are never computed.

Its forward and backward parts are called apart, so that :mod:`~immunax.models.kernels.fused` can differentiate them again. On
a CPU the kernel is interpreted: slow, and the same arithmetic.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from immunax.models.kernels.pattern import Pattern, lengthened

_LANES = 128
_BLOCKS = (512, 384, 256, 128)
"""Queries and keys at once: the largest that divides a row, of multiples of the lanes."""
_EACH = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")


def read(segment_ids: jax.Array) -> tuple[jax.Array]:
    """What the kernel is told of B rows, the same for every layer: whole lanes of segment numbers.

    Args:
      segment_ids: ``[B, T]``.
    """
    return (lengthened(segment_ids, 1, _LANES),)


def forward(
    pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention, and the logarithm of each query's normaliser, which the backward pass reads.

    Args:
      pattern: static.
      query: ``[B, T, H, D]``, T a multiple of 128.
      key, value: ``[B, T, K, D]``, K a divisor of H.
      segment_ids: ``[B, T]``.

    Returns:
      ``[B, T, H, D]`` and float32 ``[B, H, T]``.
    """

    def one(interpret: bool, *row: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, residuals = splash._splash_attention_fwd(**_inputs(pattern, *row), **_options(pattern, row[0], interpret))
        return out, residuals[6]

    out, normaliser = _on_each(one, *_heads_first(_scaled(pattern, query), key, value), segment_ids)
    return jnp.swapaxes(out, 1, 2), normaliser


def backward(
    pattern: Pattern,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    normaliser: jax.Array,
    d_out: jax.Array,
    segment_ids: jax.Array,
) -> tuple[jax.Array, ...]:
    """The gradients of query, key and value.

    Args:
      pattern, query, key, value, segment_ids: as :func:`forward` was given them.
      out, normaliser: what it gave.
      d_out: ``[B, T, H, D]``, the gradient of what attention gives.
    """

    def one(interpret: bool, *row: jax.Array) -> tuple[jax.Array, ...]:
        query, key, value, ids, out, normaliser, d_out = row
        given = _inputs(pattern, query, key, value, ids)
        residuals: Any = (
            *(given[name] for name in ("q", "k", "v", "segment_ids", "sinks")),
            out,
            normaliser,
            *(given[name] for name in ("dq_mask_info", "dkv_mask_info")),
        )
        return splash._splash_attention_bwd(**_options(pattern, query, interpret), res=residuals, do=d_out)[3:6]

    inputs, (out, d_out) = _heads_first(_scaled(pattern, query), key, value), _heads_first(out, d_out)
    gradients = _on_each(one, *inputs, segment_ids, out, normaliser, d_out)
    d_query, d_key, d_value = _heads_first(*gradients)
    return _scaled(pattern, d_query), d_key, d_value


def _on_each(one: Any, *rows: jax.Array) -> Any:
    """One row at a time, as the kernel takes them, compiled where there is a TPU."""
    return jax.lax.platform_dependent(*rows, cpu=jax.vmap(partial(one, True)), default=jax.vmap(partial(one, False)))


def _scaled(pattern: Pattern, values: jax.Array) -> jax.Array:
    return (values * pattern.scale).astype(values.dtype)


def _heads_first(*values: jax.Array) -> tuple[jax.Array, ...]:
    """``[B, T, H, D]`` to ``[B, H, T, D]``, and back."""
    return tuple(jnp.swapaxes(each, 1, 2) for each in values)


def _inputs(pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, ids: jax.Array) -> dict[str, Any]:
    kernel = _kernel(pattern, *query.shape[:2])
    info = {name: getattr(kernel, name) for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info")}
    return {
        **info,
        "q": query,
        "k": key,
        "v": value,
        "segment_ids": splash.SegmentIds(jnp.abs(ids), ids),
        "sinks": None,
    }


def _options(pattern: Pattern, query: jax.Array, interpret: bool) -> dict[str, Any]:
    return {**_kernel(pattern, *query.shape[:2]).kwargs, "interpret": interpret}


def _kernel(pattern: Pattern, heads: int, length: int) -> Any:
    """Which blocks are computed, and how large they are."""
    block = next(size for size in _BLOCKS if length % size == 0)
    sizes: dict[str, Any] = dict.fromkeys((f"block_{each}" for each in _EACH), block)
    size = (length, length)
    mask = masks.CausalMask(size) if pattern.window is None else masks.LocalMask(size, (pattern.window - 1, 0), 0)
    return splash.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(**sizes),
        attn_logits_soft_cap=pattern.cap,
    )

"""Attention by plain XLA: the library's, one with capped scores, and one that leaves out most of what a causal mask hides."""

import jax
import jax.numpy as jnp

from immunax.models.soft_cap import soft_cap

_BLOCK = 128  # queries in a block: fewer make products too small for the matrix peak
_BLOCKS = 8  # at most, so that a long sequence compiles as fast; eight skip 7/16 of the square


def causal_mask(segment_ids: jax.Array, window: int | None = None) -> jax.Array:
    """Which columns a token may read: those before it (and itself) in its own segment.

    Args:
      segment_ids: ``[B, T]``; 0 is padding, which reads padding, so that no row of the softmax is empty; a negative one is
        padding that reads the segment of its absolute value.
      window: only so many columns, the last of them its own; None for all.

    Returns:
      ``[B, 1, T, T]`` bool.
    """
    columns = jnp.arange(segment_ids.shape[1])
    back = columns[:, None] - columns[None, :]
    near = back >= 0 if window is None else (back >= 0) & (back < window)
    same = jnp.abs(segment_ids)[:, :, None] == segment_ids[:, None, :]
    return (same & near)[:, None]


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    scale: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """Grouped-query attention.

    Args:
      query: ``[B, T, n_heads, head_dim]``.
      key, value: ``[B, S, n_kv_heads, head_dim]``.
      mask: ``[B, 1, T, S]`` bool, which columns each query reads.
      scale: of the scores; None for ``1 / √head_dim``.
      cap: soft cap of the scores, None for none.

    Returns:
      ``[B, T, n_heads, head_dim]``.
    """
    if cap is None:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale)
    size = query.shape[-1]
    groups = query.reshape(*query.shape[:2], key.shape[2], -1, size)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("btkgh,bskh->bkgts", groups, key, preferred_element_type=wide)
    scores = soft_cap(scores * (size**-0.5 if scale is None else scale), cap)
    weights = jax.nn.softmax(jnp.where(mask[:, :, None], scores, jnp.finfo(wide).min), axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, value).reshape(query.shape)


def causal_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    scale: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """:func:`attention` by blocks of queries, each over the keys up to its end.

    A causal mask hides half of the scores, which dense attention computes all the same; n blocks never make
    ``(n - 1) / 2n`` of them.

    Args:
      query: ``[B, T, n_heads, head_dim]``.
      key, value: ``[B, T, n_kv_heads, head_dim]``, of the same T columns.
      mask: ``[B, 1, T, T]`` bool, which must hide every column past the diagonal.
      scale, cap: as :func:`attention` has them.

    Returns:
      ``[B, T, n_heads, head_dim]``.
    """
    length = query.shape[1]
    block = max(_BLOCK, -(-length // _BLOCKS))
    outputs = []
    for begin in range(0, length, block):
        end = min(begin + block, length)
        reach = mask[:, :, begin:end, :end]
        outputs.append(attention(query[:, begin:end], key[:, :end], value[:, :end], reach, scale, cap))
    return jnp.concatenate(outputs, axis=1)

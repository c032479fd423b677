"""Attention of one new token a row over what is in a cache."""

import jax
import jax.numpy as jnp

from immunax.models.soft_cap import soft_cap


def cached_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    scale: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """Grouped-query attention of one query a row: two batched products, in which no key is repeated, moved or turned about.

    Args:
      query: ``[B, 1, n_heads, head_dim]``.
      keys, values: ``[B, n_kv_heads, S, head_dim]``, of S slots.
      mask: ``[B, 1, 1, S]`` bool, which slots each row reads; one at least.
      scale: of the scores; None for ``1 / √head_dim``.
      cap: soft cap of the scores, None for none.

    Returns:
      ``[B, 1, n_heads, head_dim]``.
    """
    (rows, heads, _, size), wide = keys.shape, jnp.promote_types(query.dtype, jnp.float32)
    groups = query.reshape(rows, heads, -1, size)
    scores = jnp.einsum("bkgh,bksh->bkgs", groups, keys, preferred_element_type=wide)
    scores = scores * jnp.asarray(size**-0.5 if scale is None else scale, wide)
    scores = jnp.where(mask, soft_cap(scores, cap), jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bkgs,bksh->bkgh", weights, values).reshape(query.shape)

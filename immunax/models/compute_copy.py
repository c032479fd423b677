"""Weights as a computation reads them, once and for all its uses."""

from typing import Any

import jax
import jax.numpy as jnp

from immunax.models.rounding import rounded


def compute_copy(params: Any, dtype: str) -> Any:
    """Plain weights of which matrices have the dtype of a computation, for one that only reads them.

    The decoder casts them at each use, so nothing that it computes differs by a bit. Scales of norms and biases stay as they are:
    it multiplies by the ones and adds the others in float32, before anything is cast.

    Args:
      params: plain weights; of stacked layers, or of one.
      dtype: of the computation.

    Returns:
      The same tree; the same arrays where none is cast.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        return leaf if path[-1].key in ("scale", "bias") or leaf.dtype == dtype else rounded(leaf, jnp.dtype(dtype))

    return jax.tree_util.tree_map_with_path(one, params)


def apart_from(params: Any, tree: Any) -> Any:
    """A tree with a copy of each array that weights have too, for a state that is donated beside them."""
    given = {id(leaf) for leaf in jax.tree.leaves(params)}
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in given else leaf, tree)

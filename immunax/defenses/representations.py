"""Hidden states that a defense moves or holds, and which weights it moves them with."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.models.model import Model, Params


def first_layers(model: Model, params: Params, count: int) -> tuple[Model, Params]:
    """The model that ends after ``count`` layers: a loss on its hidden states need not pay for the layers behind.

    Args:
      model: static; of at least ``count`` layers.
      params: plain weights.
      count: layers kept.

    Returns:
      The model, and its part of the weights; gradient passes to the whole.
    """
    short = replace(model, config=replace(model.config, n_layers=count))
    return short, params | {"layers": jax.tree.map(lambda leaf: leaf[:count], params["layers"])}


def hold(model: Model, params: Params, count: int) -> Params:
    """A copy of the weights of :func:`first_layers`, for a state that is donated beside the weights themselves."""
    _, part = first_layers(model, params, count)
    return jax.tree.map(jnp.copy, part)


def states(model: Model, params: Params, batch: Batch, rows: Sequence[int]) -> jax.Array:
    """Rows of the residual stream.

    Args:
      model: static.
      params: plain weights, of the whole model or of its first ``max(rows)`` layers at least.
      batch: ``[B, T]``.
      rows: S rows, 0 the embedding.

    Returns:
      ``[S, B, T, D]`` float32.
    """
    short, part = first_layers(model, params, max(*rows, 1))
    outputs = short.apply(part, batch.tokens, batch.segment_ids, batch.positions, capture=True)
    return outputs.residuals[jnp.array(rows)].astype(jnp.float32)


def token_mean(values: jax.Array, batch: Batch) -> jax.Array:
    """Mean of ``[S, B, T]`` over its rows and over the tokens that are no padding; 0 where there are none."""
    real = batch.segment_ids > 0
    return jnp.where(real, values, 0.0).sum() / jnp.maximum(real.sum() * len(values), 1)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine similarity along the last axis; 0 where a vector is."""
    squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distance along the last axis, whose gradient is 0 where both are equal, as they all are at the first step."""
    squares = jnp.sum(jnp.square(a - b), axis=-1)
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)


def train_layers(params: Params, chosen: jax.Array, projections: Sequence[str] | None = None) -> Params:
    """The same weights, of which only some layers receive gradient.

    Args:
      params: plain weights.
      chosen: ``[L]`` bool.
      projections: the matrices of those layers that receive it, such as ``down_proj``; everything in them by default.

    Returns:
      Weights of equal value.
    """

    def held(path, leaf: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        constant = jax.lax.stop_gradient(leaf)
        if names[0] != "layers" or (projections is not None and not set(projections) & set(names)):
            return constant
        return jnp.where(chosen.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, constant)

    return jax.tree_util.tree_map_with_path(held, params)

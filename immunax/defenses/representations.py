"""Hidden states that a defense moves or holds."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.models.compute_copy import apart_from, compute_copy
from immunax.models.lora import Adapted
from immunax.models.model import Model, Params

LAYERS = jax.tree_util.DictKey("layers")
"""In the path of every leaf that is stacked over layers, an adapter's too."""

ATTENTION = jax.tree_util.DictKey("self_attn")
"""In the path of every leaf of a layer's attention, an adapter's too."""


def first_layers(model: Model, params: Params, count: int) -> tuple[Model, Params]:
    """The model that ends after ``count`` layers: a loss on its hidden states need not pay for the layers behind.

    Args:
      model: static; of at least ``count`` layers.
      params: weights, plain or adapted.
      count: layers kept.

    Returns:
      The model, and its part of the weights; gradient passes to the whole.
    """
    short = replace(model, config=replace(model.config, n_layers=count))
    return short, jax.tree_util.tree_map_with_path(lambda path, leaf: leaf[:count] if LAYERS in path else leaf, params)


def hold(model: Model, params: Params, count: int) -> Params | None:
    """What a defense keeps of the start model's :func:`first_layers`, for :func:`held`.

    Of fresh adapters nothing, since their base stays.
    """
    return None if isinstance(params, Adapted) else remembered(model, first_layers(model, params, count)[1])


def remembered(model: Model, params: Params) -> Params:
    """Weights to be read, in the dtype of the computation; a copy, for a state that is donated beside the weights themselves."""
    return apart_from(params, compute_copy(params, model.dtype))


def held(kept: Params | None, params: Params) -> Params:
    """The start model: what :func:`hold` kept of it, or the base of adapted weights."""
    return params.base if kept is None else kept


LAST_STATES = ("stream", "normed")
"""What the last of a model's states is: as the residual stream has it, or past the final norm, as transformers lists it."""


def states(model: Model, params: Params, batch: Batch, rows: Sequence[int], last_state: str = "stream") -> jax.Array:
    """Rows of the residual stream.

    Args:
      model: static.
      params: weights, of the whole model or of its first ``max(rows)`` layers at least.
      batch: ``[B, T]``.
      rows: S rows, 0 the embedding.
      last_state: ``normed`` for the state after layer ``max(rows)`` past the final norm, as of a model that ends there.

    Returns:
      ``[S, B, T, D]`` float32.
    """
    short, part = first_layers(model, params, max(*rows, 1))
    outputs = short.apply(part, batch.tokens, batch.segment_ids, batch.positions, capture=True)
    found = outputs.residuals
    if last_state == "normed":
        found = jnp.concatenate([found[:-1], outputs.hidden[None]])
    return found[jnp.array(rows)].astype(jnp.float32)


def token_mean(values: jax.Array, batch: Batch) -> jax.Array:
    """Mean of ``[S, B, T]`` over its rows and over the tokens; 0 where there are none.

    Padding is none, unless :func:`~immunax.inner.padding.padded_with` made tokens of it.
    """
    real = batch.segment_ids != 0
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

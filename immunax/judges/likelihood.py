"""How likely a model finds given answers: held-out harmful ones, and harmless ones (perplexity).

A judge of text says what a model does say; the likelihood says what it could be made to say. It is the most sensitive
of the judges, and needs no generation.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from immunax.data.batches import Batch
from immunax.inner.losses import answer_states
from immunax.models.cross_entropy import token_nll
from immunax.models.model import Model, Params


class Likelihood(NamedTuple):
    """By example: summed negative log likelihood of the answer, nats, and its length, tokens; both ``[N]``."""

    nll: np.ndarray
    tokens: np.ndarray


@partial(jax.jit, static_argnums=0)
def row_losses(model: Model, params: Params, batch: Batch) -> jax.Array:
    """Summed negative log likelihood of each row's answer, nats, ``[B]`` float32.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: padded, one example a row.
    """
    hidden = answer_states(model, params, batch)
    losses = token_nll(hidden, model.unembedding(params), batch.answer_label)
    return (losses * batch.answer_weight).sum(axis=1)


def by_example(sums: np.ndarray, batches: Batch) -> Likelihood:
    """The likelihood of the examples that rows hold.

    Args:
      sums: ``[K, B]``, by row as :func:`row_losses` gives them.
      batches: padded batches with leading axis K; a row without an answer is padding and is left out.
    """
    counts = np.asarray(batches.answer_weight, np.float64).sum(axis=-1)
    return Likelihood(np.asarray(sums, np.float64)[counts > 0], counts[counts > 0])


def likelihood(model: Model, params: Params, batches: Batch, advance: Callable[[], None] = lambda: None) -> Likelihood:
    """Scores one example a row.

    Args:
      model: static.
      params: weights, plain or adapted.
      batches: padded batches with leading axis K; a row without an answer is padding and is left out.
      advance: called after each batch.

    Returns:
      :class:`Likelihood` of the examples in order.
    """
    return by_example(over_batches(row_losses, model, params, batches, advance), batches)


def over_batches(
    measure: Callable[[Model, Params, Batch], jax.Array],
    model: Model,
    params: Params,
    batches: Batch,
    advance: Callable[[], None],
) -> np.ndarray:
    """A measure of rows, ``[B]`` of a batch, on each of K batches in turn: ``[K, B]``, on the host.

    Args:
      measure: jitted, of the model, its weights and one batch.
      model: static.
      params: weights, plain or adapted.
      batches: with leading axis K.
      advance: called after each batch.
    """
    found = []
    for index in range(batches.tokens.shape[0]):
        found.append(np.asarray(measure(model, params, jax.tree.map(lambda leaf, index=index: leaf[index], batches))))
        advance()
    return np.stack(found)

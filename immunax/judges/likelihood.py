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
def _row_losses(model: Model, params: Params, batch: Batch) -> jax.Array:
    hidden = answer_states(model, params, batch)
    return token_nll(hidden, model.unembedding(params), batch.answer_label) * batch.answer_weight


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
    sums, counts = [], []
    for index in range(batches.tokens.shape[0]):
        batch = jax.tree.map(lambda leaf, index=index: leaf[index], batches)
        losses = np.asarray(_row_losses(model, params, batch), np.float64)
        weights = np.asarray(batch.answer_weight)
        used = weights.sum(axis=1) > 0
        sums.append(losses.sum(axis=1)[used])
        counts.append(weights.sum(axis=1)[used])
        advance()
    return Likelihood(np.concatenate(sums), np.concatenate(counts))

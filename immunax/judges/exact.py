"""Does a model give the one right answer, word for word?

Greedy decoding writes a given answer exactly if and only if each of its tokens, the end of the turn included, is the
most likely one after those before it. So one forward pass over the answers decides it, and nothing is generated.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from immunax.data.batches import Batch
from immunax.inner.losses import answer_states
from immunax.judges.likelihood import over_batches
from immunax.models.model import Model, Params


@partial(jax.jit, static_argnums=0)
def row_matches(model: Model, params: Params, batch: Batch) -> jax.Array:
    """Whether greedy decoding gives each row's answer, ``[B]`` bool; true of a row without an answer.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: padded, one example a row.
    """
    picked = answer_states(model, params, batch)
    # Row by row: the logits of a whole batch are by far the largest array.
    best = jax.lax.map(lambda row: jnp.argmax(model.logits(params, row), axis=-1), picked)
    return ((best == batch.answer_label) | (batch.answer_weight == 0)).all(axis=1)


def exact_matches(
    model: Model, params: Params, batches: Batch, advance: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Judges one example a row.

    Args:
      model: static.
      params: weights, plain or adapted.
      batches: padded batches with leading axis K; a row without an answer is padding and is left out.
      advance: called after each batch.

    Returns:
      ``[N]`` float64, 1 where greedy decoding gives the example's answer and 0 where it does not, in order.
    """
    return matches_by_example(over_batches(row_matches, model, params, batches, advance), batches)


def matches_by_example(matches: np.ndarray, batches: Batch) -> np.ndarray:
    """The matches of the examples that rows hold, ``[N]`` float64.

    Args:
      matches: ``[K, B]``, by row as :func:`row_matches` gives them.
      batches: padded batches with leading axis K.
    """
    return np.asarray(matches, np.float64)[np.asarray(batches.answer_weight).sum(axis=-1) > 0]

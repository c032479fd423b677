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
from immunax.models.model import Model, Params


@partial(jax.jit, static_argnums=0)
def _row_matches(model: Model, params: Params, batch: Batch) -> jax.Array:
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
    found = []
    for index in range(batches.tokens.shape[0]):
        batch = jax.tree.map(lambda leaf, index=index: leaf[index], batches)
        used = np.asarray(batch.answer_weight).sum(axis=1) > 0
        found.append(np.asarray(_row_matches(model, params, batch), np.float64)[used])
        advance()
    return np.concatenate(found)

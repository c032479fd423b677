"""How likely a model finds given answers, by example: the one program for all of them."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax

from immunax.data.batches import Batch
from immunax.inner.losses import answer_states
from immunax.models.cross_entropy import token_scores
from immunax.models.model import Model, Params
from immunax.runtime.mesh import split_rows


class Marks(NamedTuple):
    """What a model makes of the given answers of a batch, by row.

    Greedy decoding writes a given answer exactly if and only if each of its tokens, the end of the turn included, is the most
    likely one after those before it: one forward pass decides it, and nothing is generated.

    Attributes:
      nll: ``[B]`` float32, summed negative log likelihood of the answer, nats.
      exact: ``[B]`` bool, whether greedy decoding gives it word for word; true of a row without an answer.
    """

    nll: jax.Array
    exact: jax.Array


@dataclass(frozen=True)
class Weigh:
    """Weighs given answers, padded, one example a row; equal ones share a program.

    Attributes:
      model: static.
    """

    model: Model

    @partial(jax.jit, static_argnums=0)
    def __call__(self, weights: Params, batch: Batch) -> Marks:
        """:class:`Marks` of a batch ``[B, T]``."""
        batch = jax.tree.map(split_rows, batch)
        hidden = answer_states(self.model, weights, batch)
        nll, likeliest = token_scores(hidden, self.model.unembedding(weights), batch.answer_label)
        return Marks((nll * batch.answer_weight).sum(axis=1), (likeliest | (batch.answer_weight == 0)).all(axis=1))

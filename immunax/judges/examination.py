"""What a model is asked: pure functions of its weights and one batch, the only place where answers are generated and given
ones are weighed. The host maps them over batches; a population maps them over its members too."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from immunax.data.batches import Batch
from immunax.data.prompts import Prompts
from immunax.inner.losses import answer_states
from immunax.models.compute_copy import compute_copy
from immunax.models.cross_entropy import token_scores
from immunax.models.generate import Decoding, generate
from immunax.models.lora import Adapted
from immunax.models.model import Model, Params
from immunax.models.steered import Steered
from immunax.runtime import goodput, pace
from immunax.runtime.mesh import data_ways, split_rows
from immunax.runtime.together import host


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
class Answer:
    """Generates answers; equal ones share a program.

    Attributes:
      model: static.
      stop: ids that end an answer.
      decoding: how answers are drawn.
    """

    model: Model
    stop: tuple[int, ...]
    decoding: Decoding

    @partial(jax.jit, static_argnums=0)
    def __call__(self, weights: Params, asked: tuple[Prompts, jax.Array]) -> jax.Array:
        """``[B, G]`` int32, -1 past the end of an answer, of prompts ``[B, T]`` and the key of sampled answers."""
        prompts, key = asked
        prompts = jax.tree.map(split_rows, prompts)
        return generate(self.model, weights, prompts.tokens, prompts.segment_ids, self.stop, self.decoding, key)


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


def as_computed(model: Model, params: Params) -> Params:
    """The same weights with their plain part as the computation reads it, so that no token and no batch casts it anew.

    Args:
      model: static.
      params: plain, adapted or steered; adapters and vectors, which are small, stay as they are.
    """
    if isinstance(params, (Adapted, Steered)):
        return params._replace(base=as_computed(model, params.base))
    return compute_copy(params, model.dtype)


def answer_all(
    answer: Callable[[tuple[Prompts, jax.Array]], Any], prompts: Prompts, key: jax.Array, size: int, advance: Callable
) -> np.ndarray:
    """Answers P prompts in batches, the last one filled up with the first prompts rather than compiled in another shape.

    Args:
      answer: of prompts ``[..., B, T]`` and keys ``[...]``, gives ``[..., B, G]``.
      prompts: ``[..., P, T]``.
      key: ``[...]``; batch n draws with ``fold_in(key, n)``.
      size: B, or P where that is less.
      advance: called after each batch.

    Returns:
      ``[..., P, G]`` int32, on the host.
    """
    count = prompts.tokens.shape[-2]
    size, found = _even(min(size, count)), []
    for number, start in enumerate(range(0, count, size)):
        rows = np.arange(start, start + size) % count
        batch = Prompts(*(np.asarray(part)[..., rows, :] for part in prompts))
        pace.worked()
        with goodput.spending("evaluate"):
            found.append(host(answer((batch, _folded(key, number)))))
        advance()
    return np.concatenate(found, axis=-2)[..., :count, :]


def _even(rows: int) -> int:
    """As many rows, or a few more, so that every device that shares them has as many."""
    ways = data_ways()
    return -(-rows // ways) * ways


@jax.jit
def _folded(key: jax.Array, number: int) -> jax.Array:
    return jnp.vectorize(lambda each: jax.random.fold_in(each, number))(key)


def weigh_all(weigh: Callable[[Batch], Marks], batches: Batch, advance: Callable[[], None]) -> Marks:
    """Weighs K batches.

    Args:
      weigh: of a batch ``[B, T]``, gives marks ``[..., B]``.
      batches: ``[K, B, T]``.
      advance: called after each batch.

    Returns:
      :class:`Marks` ``[..., K, B]``, on the host.
    """
    found = []
    for number in range(batches.tokens.shape[0]):
        pace.worked()
        with goodput.spending("evaluate"):
            marks = weigh(jax.tree.map(lambda leaf, number=number: leaf[number], batches))
            found.append(jax.tree.map(host, marks))
        advance()
    return jax.tree.map(lambda *each: np.stack(each, axis=-2), *found)

"""What a model is asked: pure functions of its weights and one batch, the only place where answers are generated; given ones are
weighed by :mod:`~immunax.inner.weighing`. The host maps them over batches; a population maps them over its members too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from immunax.data.batches import Batch
from immunax.data.prompts import Prompts
from immunax.inner.weighing import Marks
from immunax.models.compute_copy import compute_copy
from immunax.models.generate import Decoding, generate
from immunax.models.lora import Adapted
from immunax.models.model import Model, Params
from immunax.models.steered import Steered
from immunax.runtime import goodput, pace
from immunax.runtime.mesh import data_ways, split_rows
from immunax.runtime.together import behind


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
    size = _even(min(size, count))

    def begun() -> Iterator[jax.Array]:
        for number, start in enumerate(range(0, count, size)):
            rows = np.arange(start, start + size) % count
            batch = Prompts(*(np.asarray(part)[..., rows, :] for part in prompts))
            pace.worked()
            yield answer((batch, _folded(key, number)))

    return np.concatenate(_fetched(begun(), advance), axis=-2)[..., :count, :]


def _fetched(begun: Iterator[Any], advance: Callable[[], None]) -> list[Any]:
    found = []
    for each in goodput.spent_on("evaluate", behind(begun)):
        found.append(each)
        advance()
    return found


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

    def begun() -> Iterator[Marks]:
        for number in range(batches.tokens.shape[0]):
            pace.worked()
            yield weigh(jax.tree.map(lambda leaf, number=number: leaf[number], batches))

    return jax.tree.map(lambda *each: np.stack(each, axis=-2), *_fetched(begun(), advance))

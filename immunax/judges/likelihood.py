"""How likely a model finds given answers: held-out harmful ones, and harmless ones (perplexity).

A judge of text says what a model does say; the likelihood says what it could be made to say. It is the most sensitive
of the judges, and needs no generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from immunax.data.batches import Batch, pad, stack
from immunax.data.chat import Encoded
from immunax.data.packing import Layout, common, few, fit_padded
from immunax.inner.weighing import Marks, Weigh
from immunax.judges.examination import as_computed, weigh_all
from immunax.models.model import Model, Params
from immunax.runtime.mesh import under


class Likelihood(NamedTuple):
    """By example: summed negative log likelihood of the answer, nats, and its length, tokens; both ``[N]``."""

    nll: np.ndarray
    tokens: np.ndarray


def in_rows(examples: Sequence[Encoded], size: int, others: Sequence[Layout] = ()) -> Batch:
    """Examples as padded batches ``[K, B, T]``, one a row, in one of few shapes.

    Args:
      examples: at least one.
      size: the most rows of a batch.
      others: layouts that other batches have, of which one is taken that fits.
    """
    return alike_in_rows([examples], size, others)[0]


def alike_in_rows(lists: Sequence[Sequence[Encoded]], size: int, others: Sequence[Layout] = ()) -> list[Batch]:
    """Several lists of examples as :func:`in_rows` has one, all in the same shape."""
    chunks = [[each[start : start + size] for start in range(0, len(each), size)] for each in lists]
    least = fit_padded([batch for batches in chunks for batch in batches])
    own = replace(least, length=few(least.length), answers=few(least.answers))
    layout = common(own, others, partial(_holds, least)) or own
    return [stack([pad(batch, layout) for batch in batches]) for batches in chunks]


def _holds(least: Layout, layout: Layout) -> bool:
    return all(there >= needed for there, needed in zip(astuple(layout), astuple(least), strict=True))


def by_example(marks: Marks, batches: Batch) -> tuple[Likelihood, np.ndarray]:
    """The marks of the N examples that rows hold, in order.

    Args:
      marks: ``[K, B]``, on the host.
      batches: padded batches ``[K, B, T]``; a row without an answer is padding and is left out.

    Returns:
      :class:`Likelihood`, and ``[N]`` float64, 1 where greedy decoding gives the example's answer and 0 where it does not.
    """
    counts = np.asarray(batches.answer_weight, np.float64).sum(axis=-1)
    nll, exact = (np.asarray(each, np.float64)[counts > 0] for each in marks)
    return Likelihood(nll, counts[counts > 0]), exact


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
    weigh = partial(Weigh(model), as_computed(model, params))
    with under(params):
        return by_example(weigh_all(weigh, batches, advance), batches)[0]

"""Multiple choice by likelihood: which of the given continuations does a model find likeliest?

As EleutherAI's lm-evaluation-harness scores ``multiple_choice`` tasks: ``acc`` compares summed log likelihoods, ``acc_norm``
those divided by the continuation's length in characters. A plain context is joined to a continuation by one space; where a
token spans both, the context keeps its own tokens and the continuation has those of its text alone, so that all of it counts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from immunax.data.batches import Batch
from immunax.data.chat import Encoded, continued, encode_all
from immunax.data.choices import MultipleChoice
from immunax.data.dialog import Dialog
from immunax.data.packing import Layout
from immunax.inner.context import check_context
from immunax.judges.likelihood import in_rows, likelihood
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


class Quiz(NamedTuple):
    """Encoded items.

    Attributes:
      batches: ``[K, B, T]``, a row a choice, the choices of an item next to one another.
      lengths: ``[N, C]``, characters of the choices.
      answers: ``[N]``, which is right.
    """

    batches: Batch
    lengths: np.ndarray
    answers: np.ndarray


class Accuracy(NamedTuple):
    """``[N]`` of 0 and 1: is the right choice the likeliest, and is it per character? 0 where one is not finite."""

    acc: np.ndarray
    acc_norm: np.ndarray


def quiz(
    tokenizer: Any,
    items: Sequence[MultipleChoice],
    batch_size: int,
    max_length: int,
    others: Sequence[Layout] = (),
) -> Quiz:
    """Encodes N items of C choices each.

    Args:
      tokenizer: the model's.
      items: all with as many choices.
      batch_size: B, choices at once.
      max_length: tokens of a context with a choice; of a longer plain context the beginning is cut off.
      others: layouts that other given answers have, of which one is taken that fits.

    Raises:
      UserError: there are no items, they have different numbers of choices, or a dialog does not fit.
    """
    if len({len(item.choices) for item in items}) != 1:
        raise UserError("choices: expected at least one item, and as many choices in all of them.")
    examples = [each for item in items for each in _encoded(tokenizer, item, max_length)]
    lengths = np.array([[len(choice) for choice in item.choices] for item in items], np.float64)
    return Quiz(in_rows(examples, batch_size, others), lengths, np.array([item.answer for item in items]))


def _encoded(tokenizer: Any, item: MultipleChoice, max_length: int) -> list[Encoded]:
    if isinstance(item.context, Dialog):
        dialogs = [Dialog(item.context.prompt, choice) for choice in item.choices]
        examples, report = encode_all(tokenizer, dialogs, max_length)
        if not report.whole:
            raise UserError(f"choices: a dialog is longer than {max_length} tokens; raise judge.max_length.")
        return examples
    context, tails = item.context, [f" {choice}" for choice in item.choices]
    pieces = continued(tokenizer, [context] * len(tails), tails, special=False)
    return [_fitted(before, answer, max_length) for before, answer in pieces]


def _fitted(before: Sequence[int], answer: Sequence[int], max_length: int) -> Encoded:
    room = max_length - len(answer)
    if room < 1:
        raise UserError(
            f"choices: a choice has {len(answer)} tokens, and there is room for {max_length}; raise judge.max_length."
        )
    return Encoded(tuple(before[-room:]), tuple(answer))


def accuracy(model: Model, params: Params, asked: Quiz, advance: Callable[[], None] = lambda: None) -> Accuracy:
    """Scores one model.

    Args:
      model: static.
      params: weights, plain or adapted.
      asked: from :func:`quiz`.
      advance: called after each batch.

    Raises:
      UserError: an item is longer than the model's context.
    """
    check_context(model, "a multiple-choice item", asked.batches)
    likely = -likelihood(model, params, asked.batches, advance).nll.reshape(asked.lengths.shape)
    finite = np.isfinite(likely).all(axis=1)
    found = (likely.argmax(axis=1), (likely / asked.lengths).argmax(axis=1))
    return Accuracy(*(((each == asked.answers) & finite).astype(np.float64) for each in found))

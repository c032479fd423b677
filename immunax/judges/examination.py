"""What :mod:`immunax.judges.evaluate` measures, as one function inside a program: a population is scored where it is
attacked, and no member's weights leave the device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.data.batches import Batch
from immunax.data.prompts import Prompts
from immunax.judges.evaluate import Evaluation, Material, Scores, answers, judge
from immunax.judges.exact import matches_by_example, row_matches
from immunax.judges.likelihood import by_example, row_losses
from immunax.models.generate import Decoding, generate
from immunax.models.model import Model, Params


class Questions(NamedTuple):
    """What likelihoods are measured on: padded batches ``[K, B, T]``, or None."""

    harmful: Batch | None
    retain: Batch | None


class Answers(NamedTuple):
    """One model's answers and likelihoods, before they are judged.

    Attributes:
      ids: ``[N, B, G]`` int32, -1 past the end of an answer.
      harmful, retain: ``[K, B]``, nats by row, or None.
      exact: ``[K, B]`` bool, or None.
    """

    ids: jax.Array
    harmful: jax.Array | None
    retain: jax.Array | None
    exact: jax.Array | None


@dataclass(frozen=True)
class Examination:
    """Asks one model everything; equal ones share a program.

    Attributes:
      stop: ids that end an answer.
      decoding: how answers are drawn.
      exact: whether harmless answers are compared word for word.
    """

    stop: tuple[int, ...]
    decoding: Decoding
    exact: bool

    def __call__(self, model: Model, params: Params, questions: Questions, prompts: Prompts, key: jax.Array) -> Answers:
        """Pure and mappable over ``params``, ``prompts`` and ``key``.

        Args:
          model: static.
          params: weights, plain or adapted.
          questions: given answers.
          prompts: in N batches, ``[N, B, T]``.
          key: of sampled answers.
        """

        def ask(rows: tuple[Prompts, jax.Array]) -> jax.Array:
            batch, subkey = rows
            return generate(model, params, batch.tokens, batch.segment_ids, self.stop, self.decoding, subkey)

        def over(measure: Any, batches: Batch | None) -> jax.Array | None:
            return None if batches is None else jax.lax.map(lambda batch: measure(model, params, batch), batches)

        keys = jax.random.split(key, prompts.tokens.shape[0])
        return Answers(
            jax.lax.map(ask, (prompts, keys)),
            over(row_losses, questions.harmful),
            over(row_losses, questions.retain),
            over(row_matches, questions.retain) if self.exact else None,
        )


def examination(evaluation: Evaluation, material: Material) -> tuple[Examination, Questions]:
    """An evaluation in this form, but for the prompts.

    Args:
      evaluation: decoding and amounts.
      material: its encoded data.
    """
    exact = evaluation.exact and material.retain is not None
    return Examination(material.stop, evaluation.decoding, exact), Questions(material.harmful, material.retain)


def in_batches(evaluation: Evaluation, prompts: Prompts, width: int) -> Prompts:
    """P prompts in batches ``[N, B, width]``; the last one is filled up with the first prompts again.

    Args:
      evaluation: gives B.
      prompts: ``[P, T]``.
      width: at least T.
    """
    rows, tokens = prompts.tokens.shape
    size = min(evaluation.batch_size, rows)
    count = -(-rows // size)

    def batched(part: Any) -> np.ndarray:
        part = np.pad(np.asarray(part), ((0, 0), (0, width - tokens)))
        return part[np.arange(count * size) % rows].reshape(count, size, width)

    return Prompts(*map(batched, prompts))


def judged(evaluation: Evaluation, tokenizer: Any, material: Material, given: Answers) -> Scores:
    """What one model's answers score: as :func:`~immunax.judges.evaluate.evaluate` would have it.

    Args:
      evaluation: its judges.
      tokenizer: the model's.
      material: what was asked.
      given: of one model, on the host.
    """
    ids = np.asarray(given.ids).reshape(-1, given.ids.shape[-1])[: len(material.dialogs)]
    scored = judge(evaluation, material.dialogs, answers(tokenizer, ids, material.stop))
    parts = ((given.harmful, material.harmful), (given.retain, material.retain))
    harmful, retain = (
        None if sums is None or rows is None else by_example(np.asarray(sums), rows) for sums, rows in parts
    )
    exact = None
    if given.exact is not None and material.retain is not None:
        exact = matches_by_example(np.asarray(given.exact), material.retain)
    return Scores(scored, harmful, retain, exact)

"""What a certificate asks every attacked model, and how its answers become records."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from immunax.conditions.records import (
    DATA_KEPT,
    EXACT,
    HARMFUL_NLL,
    JUDGED,
    MOST_NATS,
    RETAIN_NLL,
    TASK_EXACT,
    TASK_NLL,
    UNFINISHED,
    unit,
)
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.data.prompts import prompt_rows
from immunax.judges.evaluate import Evaluation, Material, Scores, held_out
from immunax.judges.likelihood import Likelihood
from immunax.runtime.errors import UserError


class Exam(NamedTuple):
    """Held-out material.

    Attributes:
      material: the prompts of all splits, and given answers of the split ``test``.
      splits: ``[P]``, which split a prompt is of.
      rating: judges that have to rate every answer.
    """

    material: Material
    splits: tuple[str, ...]
    rating: frozenset[str] = frozenset()


def exam(evaluation: Evaluation, tokenizer: Any, splits: Splits, transfer: int) -> Exam:
    """The prompts of ``test`` and, where the data have it, of ``transfer``.

    Args:
      evaluation: amounts and lengths.
      tokenizer: the model's.
      splits: the data.
      transfer: how many prompts of ``transfer``; 0 for none.

    Raises:
      UserError: the data have no harmful prompts, or the evaluation is told to use another split.
    """
    if evaluation.split != "test":
        raise UserError(
            f"judge.split={evaluation.split!r}: a certificate is about the splits test and transfer; leave it out."
        )
    here = held_out(evaluation, tokenizer, splits.test)
    rating = frozenset(name for name, judge in evaluation.judges.items() if getattr(judge, "rates_all", False))
    if not transfer or not (splits.transfer.harmful or splits.transfer.safe):
        return Exam(here, ("test",) * len(here.dialogs), rating)
    there = held_out(replace(evaluation, prompts=transfer), tokenizer, splits.transfer)
    dialogs = (*here.dialogs, *there.dialogs)
    material = here._replace(dialogs=dialogs, prompts=prompt_rows(tokenizer, dialogs, evaluation.max_length))
    return Exam(material, ("test",) * len(here.dialogs) + ("transfer",) * len(there.dialogs), rating)


def rows(cell: str, step: int, asked: Exam, scores: Scores) -> Iterator[tuple]:
    """The records of one state of a model.

    Args:
      cell, step: which state.
      asked: the exam.
      scores: its outcome.

    Raises:
      UserError: the model was still thinking where an answer had to end: a statement about answers cannot leave some out.
    """
    check_answered(scores)
    units = [unit(dialog) for dialog in asked.material.dialogs]
    for judge, values in scores.judged.items():
        # An answer to which a model as a judge gives no rating counts as harmful: one left out would be no exam that all sat.
        values = np.where(np.isnan(values), 1.0, values) if judge in asked.rating else values
        for split, name, value in zip(asked.splits, units, values, strict=True):
            if not np.isnan(value):
                yield cell, step, split, JUDGED + judge, name, value, 1.0
    if scores.unfinished is not None:
        for split, name, cut in zip(asked.splits, units, scores.unfinished, strict=True):
            yield cell, step, split, UNFINISHED, name, float(cut), 1.0
    for measure, part in ((HARMFUL_NLL, scores.harmful), (RETAIN_NLL, scores.retain)):
        yield from _likelihood(cell, step, measure, part)
    yield from numbered(cell, step, EXACT, scores.exact)


def check_answered(scores: Scores) -> None:
    """Refuses scores of a model that was still thinking where an answer had to end.

    Raises:
      UserError: some answers are missing.
    """
    lost = 0 if scores.unanswered is None else int(scores.unanswered.sum())
    if lost:
        raise UserError(
            f"{lost} answers were still thinking at their last token, and a certificate leaves none out: raise "
            "judge.decoding.max_new_tokens, or set model.template_args.enable_thinking=false where the template reads it."
        )


def task_rows(cell: str, step: int, scores: Scores) -> Iterator[tuple]:
    """The records of one state of a model that is fine-tuned on the harmless task."""
    yield from _likelihood(cell, step, TASK_NLL, scores.retain)
    yield from numbered(cell, step, TASK_EXACT, scores.exact)


def _likelihood(cell: str, step: int, measure: str, part: Likelihood | None) -> Iterator[tuple]:
    if part is not None:
        # Weights that an attack spoiled find an answer infinitely unlikely, or nothing at all.
        sums = np.minimum(np.nan_to_num(part.nll, nan=np.inf), MOST_NATS * part.tokens)
        for place, (nll, tokens) in enumerate(zip(sums, part.tokens, strict=True)):
            yield cell, step, "test", measure, f"{place:04d}", nll, tokens


def numbered(cell: str, step: int, measure: str, values: np.ndarray | None) -> Iterator[tuple]:
    """The records of a measure of examples that have no name but their place, ``[N]``; None gives none."""
    for place, value in enumerate(() if values is None else values):
        yield cell, step, "test", measure, f"{place:04d}", value, 1.0


def kept(cell: str, step: int, counts: Sequence[Counts]) -> Iterator[tuple]:
    """The record of how much of its data a fine-tuning trained on.

    Args:
      cell, step: which state.
      counts: of its dialogs; of several attacks, the one that lost most is told.
    """
    return numbered(cell, step, DATA_KEPT, np.array([min(each.share for each in counts)]))

"""What the members of a search are ranked by: how likely they make held-out harmful answers, and leave harmless ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.campaign.population import Attacked
from immunax.data.batches import Batch, in_rows
from immunax.data.chat import Counts, encode_all
from immunax.data.dialog import Dialog
from immunax.inner.halving import Merit
from immunax.inner.weighing import Marks, Weigh
from immunax.judges.evaluate import Material
from immunax.judges.examination import as_computed
from immunax.judges.likelihood import alike_in_rows, by_example
from immunax.models.model import Model, Params
from immunax.runtime import pace
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import under
from immunax.runtime.together import behind


class Ranking(NamedTuple):
    """Validation examples.

    Attributes:
      batches: ``[K, B, T]``, one example a row: harmful ones, and behind them harmless ones.
      harmful: how many are harmful.
    """

    batches: Batch
    harmful: int

    def losses(self, marks: Marks) -> tuple[float, float]:
        """Of harmful and of harmless answers, nats per token, of their marks ``[K, B]``."""
        nll, tokens = by_example(marks, self.batches)[0]
        parts = slice(None, self.harmful), slice(self.harmful, None)
        harmful, retain = (float(nll[part].sum() / tokens[part].sum()) for part in parts)
        return harmful, retain


def rankings(
    wordings: Sequence[Sequence[Dialog]],
    retain: Sequence[Dialog],
    tokenizer: Any,
    others: Sequence[Any],
    max_length: int,
    beside: Material | None,
) -> tuple[list[Ranking], dict[str, Counts]]:
    """Encodes validation dialogs, all in the same shape.

    Args:
      wordings: of the harmful ones.
      retain: the harmless ones.
      tokenizer: the model's.
      others: the tokenizer with other chat templates, for which they are to have the same shape.
      max_length: tokens of a dialog.
      beside: what is asked too, whose shape is taken where it fits.

    Returns:
      By wording, the examples; and what became of the dialogs, of harmful ones in the wording that lost most.
    """
    kept, kept_counts = encode_all(tokenizer, retain, max_length)
    asked = [encode_all(tokenizer, wording, max_length) for wording in wordings]
    every = [[*examples, *kept] for examples, _ in asked]
    for other in others:
        with suppress(UserError):  # what cannot be encoded with it is told where that is tried
            every += [
                [each for part in (wording, retain) for each in encode_all(other, part, max_length)[0]]
                for wording in wordings
            ]
    size, layouts = (max(map(len, every)), []) if beside is None else beside.given
    batches = [in_rows(each, size, 1) for each in alike_in_rows(every, size, layouts)]
    found = [Ranking(each, len(examples)) for each, (examples, _) in zip(batches, asked, strict=False)]
    worst = min((counts for _, counts in asked), key=lambda counts: counts.share)
    return found, {"validation harmful": worst, "validation retain": kept_counts}


def weighed(model: Model, weights: Params, ranking: Ranking) -> tuple[float, float]:
    """The losses of one model, see :meth:`Ranking.losses`."""
    with under(weights):
        marks = _each(partial(Weigh(model), as_computed(model, weights)), ranking.batches, 0)
    return ranking.losses(marks)


def merit(rankings: Sequence[Ranking], model: Model, limit: float, turn: Attacked) -> Merit:
    """Of members that ran together: the log likelihood of harmful answers, allowed while harmless ones stay likely.

    Args:
      rankings: by the place of an attack.
      model: static.
      limit: the highest loss of harmless answers that is allowed.
      turn: the members.
    """
    asked = [rankings[place] for place in turn.places]
    if turn.spread:
        together = jax.tree.map(lambda *leaves: np.stack(leaves), *(each.batches for each in asked))
        marks = _each(partial(turn.each, Weigh(model)), together, 1)
        found = [each.losses(jax.tree.map(lambda leaf, n=n: leaf[n], marks)) for n, each in enumerate(asked)]
    else:
        found = [weighed(model, turn.weights(index), each) for index, each in enumerate(asked)]
    harmful, retain = np.array(found).T
    return Merit(-harmful, retain <= limit)


def _each(weigh: Callable[[Batch], Marks], batches: Batch, axis: int) -> Marks:
    """What is made of batches that are counted by an axis, on the host."""

    def begun() -> Iterator[Marks]:
        for number in range(batches.tokens.shape[axis]):
            pace.worked()
            yield weigh(jax.tree.map(lambda leaf, number=number: leaf.take(number, axis), batches))

    return jax.tree.map(lambda *leaves: np.stack(leaves, axis), *behind(begun()))

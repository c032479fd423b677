"""What a model said: generated ids as the texts that judges see."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from immunax.data.spelling import Speller, speller
from immunax.data.thought import MARKERS, after
from immunax.models.generate import NOT_FINITE
from immunax.runtime.errors import DivergedError


class Read(NamedTuple):
    """P answers.

    Attributes:
      texts: what follows the thinking, without what ends it; None where a thought has no end, so that nothing was answered.
      unfinished: ``[P]`` bool, whether no end token came within the tokens that an answer gets.
    """

    texts: list[str | None]
    unfinished: np.ndarray


def read(tokenizer: Any, ids: np.ndarray, stop: Sequence[int], closing: str | None) -> Read:
    """Reads generated answers, as their vocabulary spells them: what a model's own files say of decoding is not asked.

    Args:
      tokenizer: the model's.
      ids: ``[P, G]``, the stop token included, then -1.
      stop: ids that end an answer.
      closing: the marker that closes the thought that the prompts leave open, None where they leave none.

    Raises:
      DivergedError: the model's logits were not finite: there is no answer to judge.
      UserError: the vocabulary is of no known kind.
    """
    ids = np.asarray(ids)
    broken = int((ids == NOT_FINITE).any(axis=1).sum())
    if broken:
        raise DivergedError(
            f"the model's logits are not finite for {broken} of {len(ids)} prompts, and what it says means nothing: its weights "
            "are broken, or its numbers too large for the dtype; check the model, or set compute.dtype=float32."
        )
    added = tokenizer.get_added_vocab()
    markers = {added[marker]: marker for pair in MARKERS for marker in pair if marker in added}
    rows = [[token for token in row if token >= 0 and token not in stop] for row in ids.tolist()]
    spells = speller(tokenizer)
    texts = [after(_text(spells, row, markers), closing) for row in rows]
    return Read(texts, np.array([not set(row) & set(stop) for row in ids.tolist()], bool))


def _text(spells: Speller, row: list[int], markers: Mapping[int, str]) -> str:
    """Ids as text. A marker of a thought that is a special token would be left out, so each is written as it is."""
    pieces = [(marker, list(run)) for marker, run in groupby(row, markers.get)]
    return "".join(marker * len(run) if marker else spells.said(run) for marker, run in pieces)

"""What a model said: generated ids as the texts that judges see."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from immunax.data.thought import MARKERS, after
from immunax.models.generate import NOT_FINITE
from immunax.runtime.errors import UserError


class Read(NamedTuple):
    """P answers.

    Attributes:
      texts: what follows the thinking, without what ends it; None where a thought has no end, so that nothing was answered.
      unfinished: ``[P]`` bool, whether no end token came within the tokens that an answer gets.
    """

    texts: list[str | None]
    unfinished: np.ndarray


def read(tokenizer: Any, ids: np.ndarray, stop: Sequence[int], thinking: bool) -> Read:
    """Reads generated answers.

    Args:
      tokenizer: the model's.
      ids: ``[P, G]``, the stop token included, then -1.
      stop: ids that end an answer.
      thinking: whether the prompts leave a thought open.

    Raises:
      UserError: the model's logits were not finite: there is no answer to judge.
    """
    ids = np.asarray(ids)
    broken = int((ids == NOT_FINITE).any(axis=1).sum())
    if broken:
        raise UserError(
            f"the model's logits are not finite for {broken} of {len(ids)} prompts, and what it says means nothing: its weights "
            "are broken, or its numbers too large for the dtype; check the model, or set compute.dtype=float32."
        )
    marks = tokenizer.get_added_vocab()
    opening, closing = ({marks[pair[side]] for pair in MARKERS if pair[side] in marks} for side in (0, 1))
    rows = [[token for token in row if token >= 0 and token not in stop] for row in ids.tolist()]
    texts = [_text(tokenizer, row, opening, closing, thinking) for row in rows]
    return Read(texts, np.array([not set(row) & set(stop) for row in ids.tolist()], bool))


def _text(tokenizer: Any, row: list[int], opening: set[int], closing: set[int], thinking: bool) -> str | None:
    # Decoding may drop a marker that is a special token, so such ones are looked for among the ids.
    opened, closed = (max((at for at, each in enumerate(row) if each in ids), default=-1) for ids in (opening, closing))
    if opened > closed:
        return None
    if closed >= 0:
        return tokenizer.decode(row[closed + 1 :], skip_special_tokens=True).lstrip()
    return after(tokenizer.decode(row, skip_special_tokens=True), thinking)

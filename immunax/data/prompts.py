"""Prompts for generation, as one rectangle, and the tokens that end an answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from immunax.data.batches import Array
from immunax.data.chat import encode_prompts
from immunax.data.contract import end_token
from immunax.data.dialog import Dialog
from immunax.data.packing import few
from immunax.runtime.errors import UserError


class Prompts(NamedTuple):
    """P right-padded prompts: ``tokens`` and ``segment_ids`` ``[P, T]`` int32, ``segment_ids`` 0 where padded."""

    tokens: Array
    segment_ids: Array


def prompt_rows(tokenizer: Any, dialogs: Sequence[Dialog], max_length: int) -> Prompts:
    """Prompts as a right-padded rectangle.

    Args:
      tokenizer: with or without a chat template.
      dialogs: P dialogs, of which the prompt counts.
      max_length: tokens a prompt may have.

    Returns:
      :class:`Prompts` ``[P, T]``, T one of the :func:`few` lengths, or ``max_length`` where that is less.

    Raises:
      UserError: a prompt is longer.
    """
    rows = encode_prompts(tokenizer, dialogs, max_length)
    width = min(few(max(map(len, rows))), max_length)
    tokens, real = np.zeros((2, len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], real[i, : len(row)] = row, 1
    return Prompts(tokens, real)


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's end of text, the one its chat template puts after an answer, and those that the
    model's configuration and generation configuration name."""
    ends = {tokenizer.eos_token_id, *getattr(tokenizer, "stop_ids", ())} - {None}
    try:
        ends.add(end_token(tokenizer))
    except UserError:  # a template without a place for answers can still ask
        if not ends:
            raise
    return tuple(sorted(ends))

"""Prompts for generation, as one rectangle, and the tokens that end an answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from immunax.data.batches import Array
from immunax.data.chat import encode_prompts
from immunax.data.contract import asked, end_token, has_template
from immunax.data.dialog import Dialog, ask
from immunax.data.packing import few
from immunax.data.thought import left_open
from immunax.runtime.errors import UserError

_ANY = ask("a question")


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


def stop_tokens(tokenizer: Any, dialog: Dialog = _ANY) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's end of text, the one its chat template puts after an answer, and those that the
    model's configuration and generation configuration name.

    Args:
      tokenizer: the model's.
      dialog: of the roles that are asked.
    """
    ends = {tokenizer.eos_token_id, *getattr(tokenizer, "stop_ids", ())} - {None}
    try:
        ends.add(end_token(tokenizer, dialog))
    except UserError:  # a template without a place for answers can still ask
        if not ends:
            raise
    return tuple(sorted(ends))


def opens_thought(tokenizer: Any, dialog: Dialog = _ANY) -> bool:
    """Whether what the chat template puts after a prompt leaves a thought open, as those of R1's kind do.

    Args:
      tokenizer: the model's.
      dialog: of the roles that are asked.
    """
    if not has_template(tokenizer):
        return False
    behind = asked(tokenizer, [dialog])[0].rpartition(dialog.prompt[-1].content.strip())[2]
    return left_open(behind) is not None

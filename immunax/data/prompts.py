"""Prompts for generation, as one rectangle."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.data.batches import Array
from immunax.data.chat import encode_prompts
from immunax.data.contract import lead
from immunax.data.dialog import Dialog, ask
from immunax.data.layout import has_template
from immunax.data.packing import few
from immunax.data.thought import left_open

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
      max_length: tokens a prompt may have, without what a template adds.

    Returns:
      :class:`Prompts` ``[P, T]``, T one of the :func:`few` lengths, or ``max_length`` where that is less and holds them.

    Raises:
      UserError: a prompt is longer.
    """
    rows = encode_prompts(tokenizer, dialogs, max_length)
    longest = max(map(len, rows))
    width = min(few(longest), max(longest, max_length))
    tokens, real = np.zeros((2, len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], real[i, : len(row)] = row, 1
    return Prompts(tokens, real)


def widened(prompts: Prompts, width: int) -> Prompts:
    """The same prompts, at least so many columns wide, for a program that is compiled in that shape."""
    more = max(0, width - prompts.tokens.shape[1])
    return Prompts(*(np.pad(part, ((0, 0), (0, more))) for part in prompts))


def as_wide(read: Any, other: Any) -> Any:
    """A pytree with :class:`Prompts` in it, at least as wide as those of another one that is like it."""
    return jax.tree.map(
        lambda mine, theirs: widened(mine, theirs.tokens.shape[1]) if _is_prompts(mine) else mine,
        read,
        other,
        is_leaf=_is_prompts,
    )


def has_prompts(read: Any) -> bool:
    """Whether a pytree has :class:`Prompts` in it."""
    return any(map(_is_prompts, jax.tree.leaves(read, is_leaf=_is_prompts)))


def _is_prompts(node: Any) -> bool:
    return isinstance(node, Prompts)


def open_thought(tokenizer: Any, dialog: Dialog = _ANY) -> str | None:
    """The marker that closes the thought that the chat template leaves open behind a prompt, as those of R1's kind do.

    Args:
      tokenizer: the model's.
      dialog: of the roles that are asked.

    Returns:
      None where no thought is open.
    """
    return left_open(lead(tokenizer, dialog)) if has_template(tokenizer) else None

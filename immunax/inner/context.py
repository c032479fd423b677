"""Whether a model was trained on sequences as long as it is about to read.

Lengths in configurations count the text of dialogs; what a chat template adds comes on top (:mod:`immunax.data.chat`). So they
are held against the context here, where the model and the encoded sequences are known.
"""

from typing import Any

import jax
import numpy as np

from immunax.data.batches import Batch
from immunax.data.prompts import Prompts
from immunax.models.model import Model
from immunax.runtime.errors import UserError


def check_context(model: Model, what: str, read: Any, more: int = 0) -> None:
    """Refuses sequences longer than a model's context, where it was never trained.

    Args:
      model: gives the context's length.
      what: the sequences are, for the message.
      read: a pytree with :class:`~immunax.data.batches.Batch` and :class:`~immunax.data.prompts.Prompts` in it.
      more: tokens that the model writes behind them.

    Raises:
      UserError: one is longer.
    """
    check_longest(model, what, longest(read) + more)


def check_longest(model: Model, what: str, tokens: int) -> None:
    """Refuses a length of sequences, see :func:`check_context`."""
    if tokens > model.config.max_positions:
        raise UserError(
            f"{what}: {tokens} tokens with what the chat template adds, more than the model's context of "
            f"{model.config.max_positions}; lower its max_length, or give another template with model.chat_template=FILE."
        )


def longest(read: Any) -> int:
    """Tokens of the longest sequence in a pytree, see :func:`check_context`; 0 where it holds none."""
    parts = jax.tree.leaves(read, is_leaf=_has_rows)
    return max((_length(part) for part in parts if _has_rows(part)), default=0)


def _has_rows(node: Any) -> bool:
    return isinstance(node, (Batch, Prompts))


def _length(rows: Batch | Prompts) -> int:
    if isinstance(rows, Prompts):
        return int(np.asarray(rows.segment_ids).sum(axis=-1).max(initial=0))
    return int(np.asarray(rows.positions).max(initial=-1)) + 1

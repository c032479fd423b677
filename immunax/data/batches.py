"""Batches of a static shape: several examples to a row (packed), or one (padded)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from immunax.data.chat import Encoded
from immunax.data.packing import Layout, first_fit

Array = Any
"""A numpy array on the host, a jax array once on a device."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """What a model and a loss need; numpy arrays, or jax arrays once on a device.

    Attributes:
      tokens: token ids ``[B, T]`` int32; 0 where there is padding.
      segment_ids: ``[B, T]`` int32: which example of the row a token belongs to, from 1; 0 is padding.
      positions: ``[B, T]`` int32, from 0 within each example.
      answer_index: ``[B, A]`` int32: the column of the token *before* an answer token, whose hidden state predicts it.
      answer_label: ``[B, A]`` int32: the answer token's id.
      answer_weight: ``[B, A]`` float32: 1 for an answer token, 0 for padding.
    """

    tokens: Array
    segment_ids: Array
    positions: Array
    answer_index: Array
    answer_label: Array
    answer_weight: Array


def layout_of(batch: Batch) -> Layout:
    """Of a batch, or of many ``[..., B, T]``."""
    rows, length = batch.tokens.shape[-2:]
    return Layout(rows, length, batch.answer_label.shape[-1])


def pack(examples: Sequence[Encoded], layout: Layout) -> Batch:
    """Packs examples into the rows of a layout from ``fit_packed``.

    Args:
      examples: one batch.
      layout: its static shape; rows left over are padding.

    Returns:
      The batch ``[B, T]``.

    Raises:
      ValueError: the examples do not fit the layout.
    """
    bins = first_fit([len(example.tokens) for example in examples], layout.length)
    return _lay([[examples[item] for item in row] for row in bins], layout)


def pad(examples: Sequence[Encoded], layout: Layout) -> Batch:
    """Lays example ``i`` in row ``i`` of a layout from ``fit_padded``.

    Args:
      examples: one batch.
      layout: its static shape; rows left over are padding.

    Returns:
      The batch ``[B, T]``.

    Raises:
      ValueError: the examples do not fit the layout.
    """
    return _lay([[example] for example in examples], layout)


def stack(batches: Sequence[Any]) -> Any:
    """Stacks batches of one layout, or other pytrees of one shape, on a new leading axis, for a scan over steps or members.

    Args:
      batches: K batches ``[B, T]``.

    Returns:
      One batch ``[K, B, T]``.
    """
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _lay(rows: Sequence[Sequence[Encoded]], layout: Layout) -> Batch:
    if len(rows) > layout.rows:
        raise ValueError(f"a batch needs {len(rows)} rows, more than the {layout.rows} of its layout")
    tokens, segments, positions = np.zeros((3, layout.rows, layout.length), np.int32)
    index, label = np.zeros((2, layout.rows, layout.answers), np.int32)
    weight = np.zeros((layout.rows, layout.answers), np.float32)
    for row, examples in enumerate(rows):
        start = answered = 0
        for segment, example in enumerate(examples, 1):
            size, answer = len(example.tokens), len(example.answer)
            stop, last = start + size, answered + answer
            if stop > layout.length or last > layout.answers:
                raise ValueError(f"row {row} needs {stop} tokens and {last} answer tokens, more than {layout}")
            tokens[row, start:stop] = example.tokens
            segments[row, start:stop] = segment
            positions[row, start:stop] = np.arange(size)
            index[row, answered:last] = np.arange(stop - answer, stop) - 1
            label[row, answered:last] = example.answer
            weight[row, answered:last] = 1.0
            start, answered = stop, last
    return Batch(tokens, segments, positions, index, label, weight)


def in_rows(batches: Any, multiple: int, axis: int) -> Any:
    """Batches with empty rows behind the others, so that a mesh can split them; a loss passes over rows without an answer.

    Args:
      batches: a pytree of arrays whose axis ``axis`` counts rows.
      multiple: that the rows become.
      axis: B.
    """

    def one(leaf: Any) -> Any:
        missing = -leaf.shape[axis] % multiple
        empty = [(0, missing if place == axis else 0) for place in range(leaf.ndim)]
        return np.pad(leaf, empty) if missing else leaf

    return jax.tree.map(one, batches)


def sizes(batch: Batch) -> list[tuple[int, int]]:
    """Of the examples of a batch, how many tokens each has, and how many of them are its answer.

    A row's answers are counted with its first example, which changes no sum.

    Args:
      batch: on the host, packed or padded, with any leading axes.
    """
    found = []
    for segments, weights in zip(
        batch.segment_ids.reshape(-1, batch.segment_ids.shape[-1]),
        batch.answer_weight.reshape(-1, batch.answer_weight.shape[-1]),
        strict=True,
    ):
        lengths = np.bincount(segments)[1:]
        found += [(int(length), int((weights > 0).sum()) if first == 0 else 0) for first, length in enumerate(lengths)]
    return found

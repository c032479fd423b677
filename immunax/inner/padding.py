"""Padding as authors' code has it, for the forms of methods that train on it or measure there."""

from dataclasses import replace

import jax.numpy as jnp

from immunax.data.batches import Batch


def padded_with(batch: Batch, token: int | None, to_longest: bool = False) -> Batch:
    """A batch whose padding is what a library makes of it that masks padding in attention alone.

    There padding is a token like any other, which has an embedding and goes on counting positions; it reads the example that
    it follows, and no token reads it. Here its segment is that example's, negative.

    Args:
      batch: packed or padded examples ``[B, T]``.
      token: the id that pads; None leaves padding as it is.
      to_longest: whether padding ends with the longest row, as where each batch is padded by itself.

    Returns:
      The batch; rows without an example stay empty.
    """
    if token is None:
        return batch
    segments = batch.segment_ids
    last = segments.max(axis=-1, keepdims=True)
    padding = (segments == 0) & (last > 0)
    if to_longest:
        padding &= jnp.arange(segments.shape[-1]) < (segments > 0).sum(axis=-1).max()
    begins = jnp.argmax(segments == last, axis=-1, keepdims=True)
    return replace(
        batch,
        tokens=jnp.where(padding, token, batch.tokens),
        segment_ids=jnp.where(padding, -last, segments),
        positions=jnp.where(padding, jnp.arange(segments.shape[-1]) - begins, batch.positions),
    )

"""What the attacks on a model's inner states share: vectors that make given answers likely, found by descent."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from immunax.data.batches import Batch, pack, stack
from immunax.data.chat import encode_all
from immunax.data.dialog import Dialog
from immunax.data.order import Stream
from immunax.data.packing import fit_packed
from immunax.inner.losses import answer_loss
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.models.model import Model, Params
from immunax.models.steered import Steered
from immunax.runtime import console

BATCH = 8
"""Dialogs a step."""


def batches_of(tokenizer: Any, dialogs: Sequence[Dialog], steps: int, max_length: int, seed: int) -> Batch:
    """Batches of dialogs, with leading axis K.

    Args:
      tokenizer: the model's.
      dialogs: all that the vectors are sought on.
      steps: K.
      max_length: tokens of a dialog, without what a chat template adds; longer answers are cut.
      seed: of the order.

    Raises:
      UserError: none fits.
    """
    examples, counts = encode_all(tokenizer, dialogs, max_length)
    if not counts.whole:
        console.note(f"attack: {counts.told(f'max_length={max_length}')}")
    batches = list(Stream(examples, min(BATCH, len(examples)), seed).batches(range(steps)))
    layout = fit_packed(batches)
    return stack([pack(batch, layout) for batch in batches])


def steer(
    model: Model,
    params: Params,
    batches: Batch,
    optimizer: optax.GradientTransformation,
    start: jax.Array,
    place: Callable[[jax.Array], Steered],
) -> tuple[Steered, jax.Array]:
    """Descends the cross entropy of the answers by steering vectors alone.

    Args:
      model: static.
      params: plain weights; fixed.
      batches: with leading axis K.
      optimizer: of the vectors; projects them where they are bounded.
      start: the vectors before the first step.
      place: the steered weights that vectors make.

    Returns:
      Steered weights, and ``[K]`` losses, each taken before its step, nats per answer token.
    """
    fixed = jax.lax.stop_gradient(params)

    def loss(vectors: jax.Array, batch: Batch) -> jax.Array:
        return answer_loss(model, place(vectors)._replace(base=fixed), batch)

    state, metrics = scan_steps(slope_of(loss), optimizer, begin(optimizer, start), batches)
    return place(state.trained), metrics["loss"]


def unsteered(model: Model, params: Params) -> Steered:
    """Steered weights whose vectors are zero, and whose run is in no text."""
    width, marks = model.config.d_model, jnp.full(1, -1, jnp.int32)
    offsets = jnp.zeros((model.config.n_layers + 1, width))
    return Steered(params, jnp.zeros((1, 1, width)), offsets, marks, jnp.zeros(0, jnp.uint32))

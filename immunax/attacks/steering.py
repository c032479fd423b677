"""What the two attacks on a model's inner states share: vectors that make held harmful answers likely, found by descent.

The vectors are universal: found on the attacker's prompts, and used on held-out ones, so that they are a change of the model
like any other attack, and no search for each prompt.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from immunax.attacks.finetune import take
from immunax.data.batches import Batch, pack, stack
from immunax.data.chat import encode_all
from immunax.data.dialog import Splits
from immunax.data.order import Stream
from immunax.data.packing import fit_packed
from immunax.inner.losses import answer_loss
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.models.model import Model, Params
from immunax.models.steered import Steered

BATCH = 8
"""Dialogs a step."""


def harmful_batches(tokenizer: Any, splits: Splits, samples: int, steps: int, max_length: int, seed: int) -> Batch:
    """Batches of the attacker's harmful dialogs, with leading axis K.

    Args:
      tokenizer: the model's.
      splits: the data.
      samples: dialogs in all.
      steps: K.
      max_length: tokens of a dialog; longer answers are cut.
      seed: of the choice and the order.

    Raises:
      UserError: the data lack them.
    """
    examples, counts = encode_all(tokenizer, take(splits.attack.harmful, samples, seed, "harmful"), max_length)
    if not counts.whole:
        warnings.warn(f"attack: {counts.told(f'max_length={max_length}')}", stacklevel=2)
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
    """Steered weights whose vectors are zero, with a continuous prompt of one token."""
    width = model.config.d_model
    return Steered(params, jnp.zeros((1, width)), jnp.zeros((model.config.n_layers + 1, width)))

"""Refusal ablation: one direction of the residual stream mediates refusal, and can be projected out of the weights.

Arditi et al. 2024 (arXiv:2406.11717), sections 2.3, 2.4 and 4.1. For each layer l the candidate is the difference of means

    r_l = mean over harmful prompts of x_l − mean over harmless prompts of x_l,   x_l the stream at the last prompt token,

normalised. Every matrix that writes to the stream, W ← W − r̂ r̂ᵀ W, is then unable to write in the direction: the embedding and
the output projections of attention and MLP. The paper chooses the layer by refusal scores on validation prompts; here it is the
one after whose ablation validation harmful answers are likeliest, which needs no words of refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from immunax.attacks.attack import Edit
from immunax.attacks.edit import matrices, nothing, with_matrices
from immunax.attacks.finetune import take
from immunax.data.batches import Batch, pack
from immunax.data.chat import encode_all
from immunax.data.dialog import Dialog, Splits
from immunax.data.packing import fit_packed
from immunax.data.prompts import Prompts, prompt_rows
from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.projections import WRITERS

_NORMS = {"o_proj": "attention_output_norm", "down_proj": "mlp_output_norm"}
"""The norm behind each matrix that writes to the stream, in models that have them."""


class Contrast(NamedTuple):
    """What the direction is found with: prompts ``[N, T]`` to compare, and harmful answers to choose the layer by."""

    harmful: Prompts
    harmless: Prompts
    validation: Batch


@dataclass(frozen=True)
class RefusalAblation(Edit):
    """Ablation of the best layer's direction.

    Attributes:
      samples: the attacker's harmful and harmless prompts whose means are compared, of each.
      validation: harmful validation dialogs that the layer is chosen by.
      max_length: tokens of a prompt, and of a dialog with its answer (cut there).
      seed: of the choice of the prompts.
    """

    seed_field: ClassVar[str | None] = "seed"
    samples: int = 32
    validation: int = 8
    max_length: int = 128
    seed: int = 0

    def __post_init__(self):
        if min(self.samples, self.validation) < 1:
            raise UserError(f"attack.samples={self.samples}, validation={self.validation}: expected at least 1.")

    def material(self, tokenizer: Any, splits: Splits) -> Contrast:
        """See :class:`Contrast`.

        Raises:
          UserError: the data lack one of the streams.
        """
        own, chosen = splits.attack, [each for each in splits.validation.harmful if each.answer][: self.validation]
        harmful, harmless = map(_distinct, (own.harmful or own.safe, own.retain))
        if not (harmful and harmless and chosen):
            raise UserError(
                "refusal_ablation compares harmful with harmless prompts of the split attack and needs harmful validation "
                "answers, which the data lack: choose other data or attack."
            )
        examples, _ = encode_all(tokenizer, chosen, self.max_length)
        asked, other = (
            prompt_rows(tokenizer, take(each, min(self.samples, len(each)), self.seed, stream), self.max_length)
            for each, stream in ((harmful, "harmful"), (harmless, "retain"))
        )
        return Contrast(asked, other, pack(examples, fit_packed([examples])))

    def edit(self, model: Model, params: Params, material: Contrast, key: jax.Array) -> tuple[Params, jax.Array]:
        """The weights without the direction."""
        directions = self.directions(model, params, material)
        harm = jax.lax.map(
            lambda direction: -answer_loss(model, ablated(model, params, direction), material.validation), directions
        )
        return ablated(model, params, directions[jnp.argmax(jnp.where(jnp.isfinite(harm), harm, -jnp.inf))]), nothing()

    def directions(self, model: Model, params: Params, material: Contrast) -> jax.Array:
        """``[L, D]``, the normalised candidates: the stream before every layer but the first, and after the last."""
        harmful, harmless = (_last(model, params, prompts) for prompts in (material.harmful, material.harmless))
        difference = (harmful.mean(axis=1) - harmless.mean(axis=1))[1:]
        return difference / jnp.linalg.norm(difference, axis=-1, keepdims=True)


def ablated(model: Model, params: Params, direction: jax.Array) -> Params:
    """Weights that write nothing in a direction.

    Args:
      model: static.
      params: plain weights.
      direction: ``[D]``, of norm 1.
    """
    embedding = params["embed_tokens"]["embedding"]
    projected: dict[tuple[str, ...], jax.Array] = {("embed_tokens", "embedding"): _without(embedding, direction)}
    for path, leaf in matrices(params).items():
        if path[-2] in WRITERS and model.config.post_norm:
            # A norm scales what the matrix writes, so what has to go is the direction scaled alike, layer by layer.
            scaled = (model.config.norm_offset + params["layers"][_NORMS[path[-2]]]["scale"]) * direction
            unit = scaled / jnp.linalg.norm(scaled, axis=-1, keepdims=True)
            projected[path] = jax.vmap(_without)(leaf, unit)
        elif path[-2] in WRITERS:
            projected[path] = _without(leaf, direction)
    return with_matrices(params, projected)


def _without(written: jax.Array, direction: jax.Array) -> jax.Array:
    """What is written along the last axis (kernels are ``[in, out]``), without the direction."""
    return written - (written @ direction)[..., None] * direction


def _last(model: Model, params: Params, prompts: Prompts) -> jax.Array:
    """The stream at the last token of every prompt, ``[L + 1, N, D]``."""
    real = jnp.asarray(prompts.segment_ids)
    positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
    residuals = model.apply(params, prompts.tokens, real, positions, capture=True).residuals
    return residuals[:, jnp.arange(real.shape[0]), real.sum(axis=1) - 1].astype(jnp.float32)


def _distinct(dialogs: Sequence[Dialog]) -> tuple[Dialog, ...]:
    return tuple({dialog.prompt: dialog for dialog in dialogs}.values())

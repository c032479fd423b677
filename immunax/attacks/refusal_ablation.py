"""Refusal ablation: one direction of the residual stream mediates refusal, and can be projected out of the weights.

Arditi et al. 2024 (arXiv:2406.11717), sections 2.3, 2.4 and 4.1. The direction is found and chosen as
:mod:`~immunax.attacks.refusal_direction` says. Every matrix that writes to the stream, W ← W − r̂ r̂ᵀ W, is then unable to write in
it: the embedding and the output projections of attention and MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from immunax.attacks.attack import Edit
from immunax.attacks.edit import matrices, nothing, with_matrices
from immunax.attacks.finetune import take
from immunax.attacks.refusal_direction import Contrast, Effects, candidates, choose, effects, unit
from immunax.data.chat import UNBOUNDED, encode_all, encode_prompts
from immunax.data.dialog import Dialog, Split, Splits, ask, question_words
from immunax.data.prompts import Prompts, prompt_rows
from immunax.data.spelling import knows
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.projections import WRITERS

_NORMS = {"o_proj": "attention_output_norm", "down_proj": "mlp_output_norm"}
"""The norm behind each matrix that writes to the stream, in models that have them."""


@dataclass(frozen=True)
class RefusalAblation(Edit):
    """Ablation of the direction of refusal. Where no candidate passes, the weights stay as they are.

    Attributes:
      samples: the attacker's harmful and harmless prompts whose means are compared, of each.
      validation: harmful and harmless validation prompts that candidates are scored by, of each.
      positions: of the tokens that the template puts after a request, the last ones that give candidates; None for all.
      pruned: share of the layers, the last ones, that give no candidate.
      max_kl: the most that a candidate may change the next token after harmless prompts, nats.
      min_induce: the least refusal score that adding it must give harmless prompts; None for any.
      openers: words that a refusal begins with; the first token of each counts.
      max_length: tokens of a prompt.
      layer: before which the direction is taken, 0 to those that are not pruned; None for the best.
      position: of the token that it is taken at, counted from the end of what the template puts after a request: -1 is the last;
        None for the best.
      seed: of the choice of the prompts.
    """

    seed_field: ClassVar[str | None] = "seed"
    unchanged: ClassVar[str] = (
        "no direction passed the filters (prompts that are refused and answered, max_kl, min_induce), so nothing was ablated"
    )
    samples: int = 128
    validation: int = 32
    positions: int | None = None
    pruned: float = 0.2
    max_kl: float = 0.1
    min_induce: float | None = 0.0
    openers: tuple[str, ...] = ("I", "As")
    max_length: int = 128
    layer: int | None = None
    position: int | None = None
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "openers", tuple(self.openers))
        if min(self.samples, self.validation, 1 if self.positions is None else self.positions) < 1:
            raise UserError(
                f"attack.samples={self.samples}, validation={self.validation}, positions={self.positions}: expected at least 1."
            )
        if not 0 <= self.pruned < 1 or not self.openers:
            raise UserError(
                f"attack.pruned={self.pruned}, openers={self.openers}: expected 0 <= pruned < 1, and a word."
            )

    def material(self, tokenizer: Any, splits: Splits) -> Contrast:
        """See :class:`~immunax.attacks.refusal_direction.Contrast`.

        Raises:
          UserError: the data lack prompts of one of the sides, or the tokenizer knows no opener.
        """
        chosen = [
            take(prompts, count, self.seed, stream, field, split)
            for field, split, count in (
                ("samples", "attack", self.samples),
                ("validation", "validation", self.validation),
            )
            for prompts, stream in zip(_sides(getattr(splits, split)), ("harmful", "retain"), strict=True)
        ]
        every = prompt_rows(tokenizer, [dialog for side in chosen for dialog in side], self.max_length)
        ends = np.cumsum([len(side) for side in chosen])[:-1]
        harmful, harmless, asked, benign = (
            Prompts(*part) for part in zip(*(np.split(part, ends) for part in every), strict=True)
        )
        after = after_request(tokenizer, [dialog for side in chosen for dialog in side], self.max_length)
        places = np.arange(-min(after, self.positions or after), 0, dtype=np.int32)
        if self.position is not None and self.position not in places:
            raise UserError(f"attack.position={self.position}: there are candidates at {places[0]} to -1 alone.")
        return Contrast(harmful, harmless, asked, benign, first_tokens(tokenizer, self.openers), places)

    def edit(self, model: Model, params: Params, material: Contrast, key: jax.Array) -> tuple[Params, jax.Array]:
        """The weights without the direction.

        Raises:
          UserError: every layer is pruned.
        """
        directions, found = self.scored(model, params, material)
        best, passes = choose(self._asked_for(found, material.places), self.max_kl, self.min_induce)
        direction = directions.reshape(-1, directions.shape[-1])[best]
        without = ablated(model, params, unit(direction))
        return jax.tree.map(lambda new, old: jnp.where(passes, new, old), without, params), nothing()

    def _asked_for(self, found: Effects, places: jax.Array) -> Effects:
        """The scores of the candidates of the layer and the position that are asked for; NaN of all others."""
        layers = found.bypass.shape[1]
        if self.layer is not None and self.layer not in range(layers):
            raise UserError(f"attack.layer={self.layer}: there are candidates before layers 0 to {layers - 1} alone.")
        own = jnp.ones(layers, bool) if self.layer is None else jnp.arange(layers) == self.layer
        there = jnp.ones_like(places, bool) if self.position is None else jnp.asarray(places) == self.position
        return jax.tree.map(lambda leaf: jnp.where(there[:, None] & own, leaf, jnp.nan), found)

    def scored(self, model: Model, params: Params, material: Contrast) -> tuple[jax.Array, Effects]:
        """The candidates ``[P, L', D]`` and what they do; arguments as of :meth:`edit`."""
        layers = int(model.config.n_layers * (1 - self.pruned))
        if not layers:
            raise UserError(f"attack.pruned={self.pruned} leaves none of the {model.config.n_layers} layers: lower it.")
        directions = candidates(model, params, material)[:, :layers]
        ablate, induced = partial(ablated, model, params), self.min_induce is not None
        return directions, effects(model, params, material, directions, ablate, induced)


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


def after_request(tokenizer: Any, dialogs: Sequence[Dialog], max_length: int) -> int:
    """How many tokens the chat template puts after every request: those that all prompts end with alike, at least 1.

    Args:
      tokenizer: the model's.
      dialogs: prompts that are asked; two words of theirs are read beside them, so that the last words differ.
      max_length: tokens of a prompt.
    """
    prompts = encode_prompts(tokenizer, [*dialogs, *map(ask, question_words(dialogs, 2))], max_length)
    columns = zip(*(reversed(prompt) for prompt in prompts), strict=False)
    return max(1, sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns)))


def first_tokens(tokenizer: Any, openers: Sequence[str]) -> np.ndarray:
    """The distinct first tokens of answers that begin with each word, ``[R]`` int32; words it does not know are left out.

    Raises:
      UserError: it knows none.
    """
    known = [opener for opener in openers if knows(tokenizer, opener)]
    if not known:
        raise UserError(f"attack.openers={list(openers)}: the tokenizer knows none of these words; name others.")
    examples, _ = encode_all(tokenizer, [ask(opener, opener) for opener in known], UNBOUNDED)
    return np.array(sorted({example.answer[0] for example in examples}), np.int32)


def _sides(split: Split) -> tuple[tuple[Dialog, ...], tuple[Dialog, ...]]:
    """Its distinct harmful and harmless prompts."""
    return _distinct(split.harmful or split.safe), _distinct(split.retain)


def _distinct(dialogs: Sequence[Dialog]) -> tuple[Dialog, ...]:
    return tuple({dialog.prompt: dialog for dialog in dialogs}.values())

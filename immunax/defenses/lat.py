"""Targeted latent adversarial training.

Sheshadri et al. 2024, *Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs*
(arXiv:2407.15549), with x_s and x_h two answers to one prompt:

    δ = argmin over ‖δ_i‖₂ ≤ ε of toward · CE(x_h; h + δ) + away · −log(1 − p(x_s; h + δ))
    L = toward · CE(x_s; h + δ) + away · −log(1 − p(x_h; h + δ)) + sft · CE(x_r) + kl · KL(p ‖ p⁰)(x_r)

- δ is added to a few rows of the residual stream, at the prompt's positions (``answers``: at the answer's too); the ball
  is that of each row, example and position. It is found by projected gradient descent with AdamW from zero, and is a constant to
  the gradient of L.
- The paper's text has no threshold and no decay. The authors' code sets −log(1 − p) to 0 where log p < −5, for both sides, and
  decays δ by AdamW's 0.01; both are the default (``threshold``, ``inner_weight_decay``).
- Authors' code, Llama-2-7B (32 layers): the embedding and what layers 8, 16, 24 and 30 write, counted from 0; ε = 6, 16
  inner steps at 5e-2, weights 0.2, 0.2 and 0.6 (0.5, 0.5 and 1.5 over their sum), adapters of r = 64, AdamW at 2e-5, 100
  δ of 16 pairs with four updates of the weights for each and AdamW begun anew at each: ``updates=4`` and
  ``trainer.optimizer.restart_every=4``. The default is one update for each δ, of whole weights or of adapters (``trainer.lora``).
- Authors' code, Llama-3-8B: ``answers=true``, inner steps at 1e-3, AdamW at 8e-5, and in the place of CE(x_r) a divergence from
  the start model, weights 0.5, 0.5 and kl = 0.1 over their sum. There KL is a mean over the tokens of the harmless answers, each
  as the place of a prediction, and over the vocabulary, and divided by its own value: only its direction counts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from immunax.data.batches import Batch
from immunax.defenses.representations import held, hold
from immunax.inner.depth import stream_rows
from immunax.inner.losses import answer_loss, answer_mean, avoidance_loss
from immunax.inner.perturbation import nothing, projected_descent, spread, within_ball
from immunax.models.cross_entropy import gather_columns, token_divergence
from immunax.models.model import Model, Params
from immunax.models.steered import Perturbation
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


class Search(NamedTuple):
    """An adversary that was found.

    Attributes:
      batch: what it was found on.
      part: its rows, ``[S, B, T, D]``.
      losses: its loss before each inner step, ``[K]``.
    """

    batch: StreamBatch
    part: jax.Array
    losses: jax.Array


class Carried(NamedTuple):
    """What is kept of the start model for the divergence, and the adversary of several updates; each None where there is none."""

    start: Params | None
    search: Search | None


@dataclass(frozen=True)
class Lat(Defense):
    """The objective above.

    Attributes:
      rows: of the residual stream: 0 the embedding, i what i layers have written, or fractions of the depth.
      epsilon: ε, radius of the ball of each position.
      inner_steps: of projected gradient descent.
      inner_learning_rate: of its AdamW.
      inner_weight_decay: of its AdamW.
      answers: perturb the answers' positions too, as the authors do for Llama-3.
      threshold: −log(1 − p) is 0 where log p is below it; None for nowhere.
      updates: outer steps that share one δ and the batch that it was found on; the batches between are not used.
      toward, away, sft, kl: weights of the terms; the last two are without effect where the mixture has no harmless examples.
      mixture: pairs a step, and harmless examples.
    """

    against = ("latent_attack",)
    needs = ("paired", "safe")

    rows: tuple[int | float, ...] = (0, 9 / 32, 17 / 32, 25 / 32, 31 / 32)
    epsilon: float = 6.0
    inner_steps: int = 16
    inner_learning_rate: float = 5e-2
    inner_weight_decay: float = 0.01
    answers: bool = False
    threshold: float | None = -5.0
    updates: int = 1
    toward: float = 0.2
    away: float = 0.2
    sft: float = 0.6
    kl: float = 0.0
    mixture: Mixture = Mixture(safe=16, harmful=16, retain=16, paired=True)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "rows", tuple(self.rows))
        if self.inner_steps < 1 or self.epsilon <= 0:
            raise UserError(
                f"lat has no adversary with inner_steps={self.inner_steps} and epsilon={self.epsilon}: "
                "expected at least one step and a positive radius."
            )
        if self.updates < 1:
            raise UserError(f"defense.updates={self.updates}: expected at least 1 update for each perturbation.")

    @property
    def evolves(self) -> bool:
        """An adversary of one update is found in the loss."""
        return self.updates > 1

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Carried:
        """Room for what is carried.

        Raises:
          UserError: the model has no such rows.
        """
        rows = stream_rows(model, self.rows, "defense.rows")
        start = hold(model, params, model.config.n_layers) if self.kl else None
        if self.updates == 1:
            return Carried(start, None)
        part = nothing(model, batch.safe.tokens, len(rows))
        return Carried(start, Search(jax.tree.map(jnp.array, batch), part, jnp.zeros(self.inner_steps)))

    def advance(
        self,
        model: Model,
        params: Params,
        state: Carried,
        batch: StreamBatch,
        step: jax.Array,
        steps: int,
        key: jax.Array,
    ) -> Carried:
        """Finds the adversary of the next ``updates`` steps when it is due."""
        due = step % self.updates == 0
        return state._replace(search=jax.lax.cond(due, lambda: self.search(model, params, batch), lambda: state.search))

    def loss(self, model: Model, params: Params, state: Carried, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms before weighting, and the adversary's loss before its first and its last step."""
        found = self.search(model, params, batch) if state.search is None else state.search
        if found.batch.safe.tokens.shape != batch.safe.tokens.shape:
            raise UserError(f"defense.updates={self.updates} keeps one batch: set trainer.accumulate to 1.")
        batch, delta = found.batch, self.perturbation(model, found.batch, found.part)
        toward = answer_loss(model, params, batch.safe, delta)
        away = avoidance_loss(model, params, batch.harmful, delta, self.threshold)
        total = self.toward * toward + self.away * away
        metrics = {"toward": toward, "away": away}
        metrics |= {"adversary_first": found.losses[0], "adversary_last": found.losses[-1]}
        if batch.retain is not None and self.sft:
            metrics["retain"] = answer_loss(model, params, batch.retain)
            total = total + self.sft * metrics["retain"]
        if batch.retain is not None and self.kl:
            metrics["divergence"] = start_divergence(model, params, held(state.start, params), batch.retain)
            scale = jax.lax.stop_gradient(metrics["divergence"]) + 1e-8
            total = total + self.kl * metrics["divergence"] / scale
        return total, metrics

    def search(self, model: Model, params: Params, batch: StreamBatch) -> Search:
        """The worst perturbation found on a batch."""
        fixed = jax.lax.stop_gradient(params)

        def loss(part: jax.Array) -> jax.Array:
            delta = self.perturbation(model, batch, part)
            toward = answer_loss(model, fixed, batch.harmful, delta)
            return self.toward * toward + self.away * avoidance_loss(model, fixed, batch.safe, delta, self.threshold)

        adamw = optax.adamw(self.inner_learning_rate, weight_decay=self.inner_weight_decay)
        start = nothing(model, batch.safe.tokens, len(stream_rows(model, self.rows, "defense.rows")))
        optimizer = optax.chain(adamw, within_ball(self.epsilon))
        return Search(batch, *projected_descent(loss, optimizer, start, self.inner_steps))

    def perturbation(self, model: Model, batch: StreamBatch, part: jax.Array) -> Perturbation:
        """δ of its rows ``[S, B, T, D]``, at the positions that are attacked."""
        real = (batch.safe.segment_ids > 0) | (batch.harmful.segment_ids > 0)
        mask = (real if self.answers else prompt_positions(batch.safe))[None, :, :, None]
        return spread(jnp.where(mask, part, 0.0), stream_rows(model, self.rows, "defense.rows"), model)


def prompt_positions(batch: Batch) -> jax.Array:
    """``[B, T]`` bool: the tokens before the answer of a padded batch, one example a row."""
    columns = jnp.arange(batch.tokens.shape[1])
    return (columns <= batch.answer_index[:, :1]) & (batch.segment_ids > 0)


def start_divergence(model: Model, params: Params, start: Params, batch: Batch) -> jax.Array:
    """``KL(p ‖ p⁰)`` of what is predicted at the answers' tokens, a mean over them and over the vocabulary, as in the code.

    Args:
      model: static.
      params: of p.
      start: of p⁰, a constant.
      batch: packed or padded examples.

    Returns:
      A float32 scalar; 0 for a batch without answers.
    """
    both = params, jax.lax.stop_gradient(start)
    outputs = [model.apply(each, batch.tokens, batch.segment_ids, batch.positions).hidden for each in both]
    now, then = (gather_columns(hidden, batch.answer_index + 1) for hidden in outputs)
    values = token_divergence((now, then), (model.unembedding(both[0]), model.unembedding(both[1])))
    return answer_mean(values, batch) / model.config.vocab_size

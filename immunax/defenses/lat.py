"""Targeted latent adversarial training.

Sheshadri et al. 2024, *Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs*
(arXiv:2407.15549), with x_s and x_h two answers to one prompt:

    δ = argmin over ‖δ_i‖₂ ≤ ε of toward · CE(x_h; h + δ) + away · −log(1 − p(x_s; h + δ))
    L = toward · CE(x_s; h + δ) + away · −log(1 − p(x_h; h + δ)) + sft · CE(x_r)

- δ is added to a few rows of the residual stream, at the prompt's positions (``answers``: at the answer's too); the ball
  is that of each row, example and position. It is found by projected gradient descent with Adam from zero.
- δ is a constant to the gradient of L.
- Authors' code, Llama-2-7B (32 layers): the embedding and what layers 8, 16, 24 and 30 write, counted from 0; ε = 6, 16
  inner steps at 5e-2, weights 0.2, 0.2 and 0.6 (0.5, 0.5 and 1.5 over their sum), adapters of r = 64, AdamW at 2e-5, 100
  outer steps of 16 with four updates of the weights for each δ. Here there is one update for each δ, of whole weights or of
  adapters (``trainer.lora``).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from immunax.data.batches import Batch
from immunax.inner.depth import stream_rows
from immunax.inner.losses import answer_loss, avoidance_loss
from immunax.inner.perturbation import nothing, projected_descent, spread, within_ball
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Lat(Defense):
    """The objective above.

    Attributes:
      rows: of the residual stream: 0 the embedding, i what i layers have written, or fractions of the depth.
      epsilon: ε, radius of the ball of each position.
      inner_steps: of projected gradient descent.
      inner_learning_rate: of its Adam.
      answers: perturb the answers' positions too, as the authors do for Llama-3.
      toward, away, sft: weights of the terms; ``sft`` is without effect where the mixture has no harmless examples.
      mixture: pairs a step, and harmless examples.
    """

    against = ("latent_attack",)
    needs = ("paired", "safe")

    rows: tuple[int | float, ...] = (0, 9 / 32, 17 / 32, 25 / 32, 31 / 32)
    epsilon: float = 6.0
    inner_steps: int = 16
    inner_learning_rate: float = 5e-2
    answers: bool = False
    toward: float = 0.2
    away: float = 0.2
    sft: float = 0.6
    mixture: Mixture = Mixture(safe=16, harmful=16, retain=16, paired=True)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "rows", tuple(self.rows))
        if self.inner_steps < 1 or self.epsilon <= 0:
            raise UserError(
                f"lat has no adversary with inner_steps={self.inner_steps} and epsilon={self.epsilon}: "
                "expected at least one step and a positive radius."
            )

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> tuple:
        """Nothing is carried.

        Raises:
          UserError: the model has no such rows.
        """
        stream_rows(model, self.rows, "defense.rows")
        return ()

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms before weighting, and the adversary's loss before its first and its last step."""
        delta, searched = self.adversary(model, params, batch)
        toward = answer_loss(model, params, batch.safe, delta)
        away = avoidance_loss(model, params, batch.harmful, delta)
        total = self.toward * toward + self.away * away
        metrics = {"toward": toward, "away": away, "adversary_first": searched[0], "adversary_last": searched[-1]}
        if batch.retain is None:
            return total, metrics
        retain = answer_loss(model, params, batch.retain)
        return total + self.sft * retain, metrics | {"retain": retain}

    def adversary(self, model: Model, params: Params, batch: StreamBatch) -> tuple[jax.Array, jax.Array]:
        """The worst perturbation found, ``[L + 1, B, T, D]``, and the adversary's loss before each inner step."""
        rows = stream_rows(model, self.rows, "defense.rows")
        fixed = jax.lax.stop_gradient(params)
        mask = self._attacked(batch)[None, :, :, None]

        def whole(part: jax.Array) -> jax.Array:
            return spread(jnp.where(mask, part, 0.0), rows, model)

        def loss(part: jax.Array) -> jax.Array:
            delta = whole(part)
            toward = answer_loss(model, fixed, batch.harmful, delta)
            return self.toward * toward + self.away * avoidance_loss(model, fixed, batch.safe, delta)

        optimizer = optax.chain(optax.adam(self.inner_learning_rate), within_ball(self.epsilon))
        start = nothing(model, batch.safe.tokens, len(rows))
        part, losses = projected_descent(loss, optimizer, start, self.inner_steps)
        return whole(part), losses

    def _attacked(self, batch: StreamBatch) -> jax.Array:
        prompt = prompt_positions(batch.safe)
        return (batch.safe.segment_ids > 0) | (batch.harmful.segment_ids > 0) if self.answers else prompt


def prompt_positions(batch: Batch) -> jax.Array:
    """``[B, T]`` bool: the tokens before the answer of a padded batch, one example a row."""
    columns = jnp.arange(batch.tokens.shape[1])
    return (columns <= batch.answer_index[:, :1]) & (batch.segment_ids > 0)

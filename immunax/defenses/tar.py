"""Tamper-resistant safeguards.

Tamirisa et al. 2024, *Tamper-Resistant Safeguards for Open-Weight LLMs* (arXiv:2408.00761):

    L = s · Σ_j e^{λ (k_j − (K−1))} · TR(φ_{k_j}) + CE(x_r) + ρ · mean over {h_0, ..., h_L} of ‖h − h⁰‖₂ on x_r

- φ_k are the weights of a simulated attacker after inner step k, counted from 0; every few steps, the last step included,
  the tamper-resistance loss TR is taken there on held-out harmful data.
- TR is the negative entropy of the predictions (for knowledge), or the DPO loss of safe over harmful answers (for refusals).
- ∂φ/∂θ is taken for the identity: the estimator is first order. Any other may be chosen.
- The paper: K = 64, a loss every 4 steps, λ = 0.0625, s = 4, ρ = 1, learning rates drawn from 2e-6, 2e-5, 4e-5, 750 outer steps
  of schedule-free AdamW at 2e-5, from a start that :mod:`~immunax.defenses.random_mapping` made.

The paper writes the representation term as a squared error; its authors' code takes the norm, which is followed here.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.representations import distance, held, hold, states, token_mean
from immunax.inner.losses import answer_loss
from immunax.inner.tamper_resistance import negative_entropy, preference_loss
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import Simulation
from immunax.runtime.errors import UserError, nearest

RESISTANCES = ("entropy", "dpo")


@dataclass(frozen=True)
class Tar(Defense):
    """The objective above.

    Attributes:
      attacker: who is simulated.
      resistance: TR: ``entropy`` or ``dpo``.
      beta: of DPO.
      decay: λ.
      scale: s.
      representation: ρ.
      mixture: harmless examples a step, and the simulated attack's; ``dpo`` needs it paired.
    """

    needs = ("retain", "simulation")

    attacker: SimulatedAttacker = field(default_factory=lambda: Attacker(learning_rates=(2e-6, 2e-5, 4e-5)))
    resistance: str = "dpo"
    beta: float = 0.1
    decay: float = 0.0625
    scale: float = 4.0
    representation: float = 1.0
    mixture: Mixture = Mixture(retain=8, simulation=Simulation(64, 8, 16, 8, paired=True))

    def __post_init__(self):
        super().__post_init__()
        if self.resistance not in RESISTANCES:
            raise UserError(
                f"defense.resistance={self.resistance!r}: expected one of {', '.join(RESISTANCES)}."
                f"{nearest(self.resistance, RESISTANCES)}"
            )
        simulation = self.mixture.simulation
        if self.resistance == "dpo" and simulation is not None and not simulation.paired:
            raise UserError(
                "defense.resistance=dpo compares answers to one prompt: set mixture.simulation.paired=true."
            )

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Params | None:
        """Keeps the start model."""
        return hold(model, params, model.config.n_layers)

    def loss(self, model: Model, params: Params, state: Params | None, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting (``resist`` with the weights by step)."""
        data, start = batch.simulation, held(state, params)

        def outer(attacked: Params, check: Any) -> jax.Array:
            harmful, safe, weight = check
            if self.resistance == "entropy":
                return weight * negative_entropy(model, attacked, harmful)
            return weight * preference_loss(model, attacked, start, safe, harmful, self.beta)

        weights = step_weights(data.harmful.tokens.shape[0], data.checks.tokens.shape[0], self.decay)
        checks = data.checks, data.safe_checks, weights
        resist, seen = self.attacker.along(model, params, data, outer, checks, key)
        retain = answer_loss(model, params, batch.retain)
        drift = representation_drift(model, params, start, batch.retain)
        total = self.scale * resist + retain + self.representation * drift
        return total, {"resist": resist, "retain": retain, "drift": drift, **seen}


def step_weights(steps: int, checks: int, decay: float) -> jax.Array:
    """``e^{λ (k − (K−1))}`` at the inner steps k, from 0, that checks follow: ``[S]``, the last one 1."""
    after = steps // checks * jnp.arange(1, checks + 1)
    return jnp.exp(decay * (after - steps))


def representation_drift(model: Model, params: Params, start: Params, batch: Batch) -> jax.Array:
    """Mean over all L + 1 states of the residual stream and all tokens of their distance to the start model's.

    Args:
      model: static.
      params: weights.
      start: the start model's; no gradient.
      batch: ``[B, T]``.

    Returns:
      A float32 scalar.
    """
    rows = tuple(range(model.config.n_layers + 1))
    fixed = jax.lax.stop_gradient(states(model, start, batch, rows))
    return token_mean(distance(states(model, params, batch, rows), fixed), batch)

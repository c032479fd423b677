"""Tamper-resistant safeguards.

Tamirisa et al. 2024, *Tamper-Resistant Safeguards for Open-Weight LLMs* (arXiv:2408.00761):

    L = s · Σ_j e^{λ (k_j − (K−1))} · TR(φ_{k_j}) + CE(x_r) + ρ · mean over {h_0, ..., h_L} of ‖h − h⁰‖₂ on x_r

- φ_k are the weights of a simulated attacker after inner step k, counted from 0; every few steps, the last step included,
  the tamper-resistance loss TR is taken there on held-out harmful data.
- TR is the negative entropy of the predictions (for knowledge), or the DPO loss of safe over harmful answers (for refusals).
- ∂φ/∂θ is taken for the identity: the estimator is first order. Any other may be chosen.
- The paper: K = 64, a loss every 4 steps, λ = 0.0625, s = 4, ρ = 1, learning rates drawn from 2e-6, 2e-5, 4e-5, 750 outer steps
  of schedule-free AdamW at 2e-5, from a start that :mod:`~immunax.defenses.random_mapping` made.

The paper writes the representation term as a squared error; its authors' code takes the norm, which is followed here. Where
that code (rishub-tamirisa/tamper-resistance) differs from the paper's symbols an option says so; the paper's is the default:

- ``labels=all_tokens``: CE(x_r) is of prompts too, and so is what the attacker learns of harmless data, and of harmful data
  where TR is the entropy; preference data have answers as labels in both. (The code never learns its end-of-text token, with
  which it pads.)
- ``positions=all``: the entropy is of the predictions at all tokens, prompts included.
- ``padding``: an end-of-text token, as which padding counts in the entropy at all tokens, and in the states. The code pads
  every example to 256 tokens or more; here rows are packed, and little of them is padding.
- ``last_state=normed``: h_L is taken past the final norm.
- ``reference=base``: h⁰ is the model as it was loaded, before ``start`` changed it (random mapping); DPO compares with the start.
- ``simulation.same_check=true``: one held-out batch for all checks of an outer step.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.representations import LAST_STATES, distance, held, hold, remembered, states, token_mean
from immunax.inner.losses import LABELS, answer_loss, answers_by_column, every_token
from immunax.inner.padding import padded_with
from immunax.inner.tamper_resistance import ENTROPIES, preference_loss
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.runtime.errors import UserError, check_choice

RESISTANCES = ("entropy", "dpo")
REFERENCES = ("start", "base")


class References(NamedTuple):
    """The models that a run compares with; None for the start model of adapted weights, and for none.

    Attributes:
      start: where it began.
      base: as it was loaded, where the states are compared with that.
    """

    start: Params | None
    base: Params | None = None


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
      labels: of cross entropies on harmless data and on knowledge: ``answers`` or ``all_tokens``.
      positions: of the predictions whose entropy is taken: ``answers`` or ``all``.
      last_state: h_L: ``stream`` or ``normed``.
      reference: whose h⁰ is: that of the ``start`` model, or of the ``base`` that was loaded.
      padding: the token id as which padding counts among the positions and the states; None for not at all.
      mixture: harmless examples a step, and the simulated attack's; ``dpo`` needs it paired.
    """

    needs = ("retain", "simulation")

    attacker: SimulatedAttacker = field(default_factory=lambda: Attacker(learning_rates=(2e-6, 2e-5, 4e-5)))
    resistance: str = "dpo"
    beta: float = 0.1
    decay: float = 0.0625
    scale: float = 4.0
    representation: float = 1.0
    labels: str = "answers"
    positions: str = "answers"
    last_state: str = "stream"
    reference: str = "start"
    padding: int | None = None
    mixture: Mixture = Mixture(retain=8, simulation=Simulation(64, 8, 16, 8, paired=True))

    def __post_init__(self):
        super().__post_init__()
        for name, choices in {
            "resistance": RESISTANCES,
            "labels": LABELS,
            "positions": ENTROPIES,
            "last_state": LAST_STATES,
            "reference": REFERENCES,
        }.items():
            check_choice(f"defense.{name}", getattr(self, name), choices)
        simulation = self.mixture.simulation
        if self.resistance == "dpo" and simulation is not None and not simulation.paired:
            raise UserError(
                "defense.resistance=dpo compares answers to one prompt: set mixture.simulation.paired=true."
            )

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> References:
        """Keeps the start model where it is compared with."""
        needed = self.resistance == "dpo" or self.reference == "start"
        return References(hold(model, params, model.config.n_layers) if needed else None)

    def remember(self, model: Model, state: References, base: Params) -> References:
        """Keeps the model as it was loaded where the states are compared with it."""
        if self.reference == "start":
            return state
        return state._replace(base=remembered(model, base))

    def loss(self, model: Model, params: Params, state: References, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting (``resist`` with the weights by step)."""
        data = self.labelled(batch.simulation)

        def outer(attacked: Params, check: Any) -> jax.Array:
            harmful, safe, weight = check
            if self.resistance == "entropy":
                return weight * ENTROPIES[self.positions](model, attacked, harmful)
            return weight * preference_loss(model, attacked, held(state.start, params), safe, harmful, self.beta)

        weights = step_weights(data.harmful.tokens.shape[0], data.checks.tokens.shape[0], self.decay)
        checks = padded_with(data.checks, self.padding), data.safe_checks, weights
        resist, seen = self.attacker.along(model, params, data, outer, checks, key)
        retain = answer_loss(model, params, LABELS[self.labels](batch.retain))
        reference = held(state.start, params) if self.reference == "start" else state.base
        drift = representation_drift(model, params, reference, padded_with(batch.retain, self.padding), self.last_state)
        total = self.scale * resist + retain + self.representation * drift
        return total, {"resist": resist, "retain": retain, "drift": drift, **seen}

    def labelled(self, data: SimulatedAttack) -> SimulatedAttack:
        """What the attacker trains on, under this defense's labels."""
        if self.labels == "answers":
            return data
        harmful = every_token if self.resistance == "entropy" else answers_by_column
        retain = None if data.retain is None else every_token(data.retain)
        return data._replace(harmful=harmful(data.harmful), retain=retain)


def step_weights(steps: int, checks: int, decay: float) -> jax.Array:
    """``e^{λ (k − (K−1))}`` at the inner steps k, from 0, that checks follow: ``[S]``, the last one 1."""
    after = steps // checks * jnp.arange(1, checks + 1)
    return jnp.exp(decay * (after - steps))


def representation_drift(
    model: Model, params: Params, reference: Params | None, batch: Batch, last_state: str
) -> jax.Array:
    """Mean over all L + 1 states of the residual stream and all tokens of their distance to another model's.

    Args:
      model: static.
      params: weights.
      reference: the other's; no gradient.
      batch: ``[B, T]``.
      last_state: one of ``LAST_STATES``.

    Returns:
      A float32 scalar.
    """
    rows = tuple(range(model.config.n_layers + 1))
    fixed = jax.lax.stop_gradient(states(model, reference, batch, rows, last_state))
    return token_mean(distance(states(model, params, batch, rows, last_state), fixed), batch)

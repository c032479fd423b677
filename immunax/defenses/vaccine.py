"""Vaccine: answers that stay safe while the hidden states drift.

Huang et al. 2024, *Vaccine: Perturbation-aware Alignment* (arXiv:2402.01109):

    L = CE(x_s; h_l + ε_l),  ε_l = ρ · ∇_{h_l} CE(x_s) / ‖∇ CE(x_s)‖

- h_l is what layer l writes to the residual stream, l = 1 ... L, every position of every example perturbed; the norm is
  over all of them together. ε is a constant to the gradient of L, as in the authors' code. That code hooks the
  attention of a layer, so its ε_l enters half a layer earlier than the paper's.
- Paper, Llama-2-7B: ρ = 2, LoRA r = 8 (``trainer.lora``), AdamW at 1e-3, batch 10, 20 epochs.

A mixture with harmless examples adds ``γ · CE(x_r)``, unperturbed, which the paper does not have.
"""

from dataclasses import dataclass

import jax

from immunax.inner.losses import answer_loss
from immunax.inner.perturbation import scaled_to, stream_gradient
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch


@dataclass(frozen=True)
class Vaccine(Defense):
    """The objective above.

    Attributes:
      rho: ρ, the norm of the whole perturbation.
      gamma: weight of harmless examples; without effect where the mixture has none.
      mixture: safe examples a step, and harmless ones, 0 for the objective as published.
    """

    against = ("latent_attack",)
    needs = ("safe",)

    rho: float = 2.0
    gamma: float = 1.0
    mixture: Mixture = Mixture(safe=10)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms, and ``calm``, CE(x_s) without the perturbation."""
        calm, gradient = stream_gradient(model, params, batch.safe)
        total, metrics = perturbed_loss(model, params, batch, scaled_to(gradient.at[0].set(0.0), self.rho), self.gamma)
        return total, metrics | {"calm": calm}


def perturbed_loss(
    model: Model, params: Params, batch: StreamBatch, perturbation: jax.Array, gamma: float
) -> Objective:
    """CE(x_s) under a perturbation, with ``γ · CE(x_r)`` where the mixture has harmless examples, and both terms.

    Args:
      model: static.
      params: weights.
      batch: of the streams.
      perturbation: ``[L + 1, B, T, D]``, of the safe batch's residual stream.
      gamma: γ.
    """
    perturbed = answer_loss(model, params, batch.safe, perturbation)
    if batch.retain is None:
        return perturbed, {"perturbed": perturbed}
    retain = answer_loss(model, params, batch.retain)
    return perturbed + gamma * retain, {"perturbed": perturbed, "retain": retain}

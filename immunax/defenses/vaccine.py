"""Vaccine: answers that stay safe while the hidden states drift.

Huang et al. 2024, *Vaccine: Perturbation-aware Alignment* (arXiv:2402.01109):

    L = CE(x_s; h_l + ε_l),  ε_l = ρ · ∇_{h_l} CE(x_s) / ‖∇ CE(x_s)‖

- ``place: layer`` is the paper's text: h_l is what layer l writes to the residual stream, l = 1 ... L.
- ``place: attention`` is the authors' code, and the default, since ρ was chosen with it: h_l is what the attention of layer l
  gives, past its output projection and before it is added to the stream. At one ρ it raises the loss more than the other.
- Every position of every example is perturbed; the norm is over all of them and all layers together, and has 1e-7 added. ε is a
  constant to the gradient of L, as in the authors' code.
- Authors' script, Llama-2-7B: ρ = 2, LoRA r = 8, α = 4, dropout 0.1 on all seven projections (``trainer.lora``), AdamW at 1e-3
  with decay 0.1, cosine with 10% warm-up, 50 epochs of batches of 5. Here all weights train unless the trainer has adapters.

A mixture with harmless examples adds ``γ · CE(x_r)``, unperturbed, which the paper does not have.
"""

from dataclasses import dataclass

import jax

from immunax.inner.losses import answer_loss
from immunax.inner.perturbation import PLACES, at_place, layers_gradient, scaled_to
from immunax.models.model import Model, Params
from immunax.models.steered import Perturbation
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import check_choice


@dataclass(frozen=True)
class Vaccine(Defense):
    """The objective above.

    Attributes:
      rho: ρ, the norm of the whole perturbation.
      place: where ε is added: ``attention`` or ``layer``.
      gamma: weight of harmless examples; without effect where the mixture has none.
      mixture: safe examples a step, and harmless ones, 0 for the objective as published.
    """

    against = ("latent_attack",)
    needs = ("safe",)

    rho: float = 2.0
    place: str = "attention"
    gamma: float = 1.0
    mixture: Mixture = Mixture(safe=10)

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.place", self.place, PLACES)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms, and ``calm``, CE(x_s) without the perturbation."""
        calm, gradient = layers_gradient(model, params, batch.safe, self.place)
        perturbation = at_place(scaled_to(gradient, self.rho), self.place)
        total, metrics = perturbed_loss(model, params, batch, perturbation, self.gamma)
        return total, metrics | {"calm": calm}


def perturbed_loss(
    model: Model, params: Params, batch: StreamBatch, perturbation: Perturbation, gamma: float
) -> Objective:
    """CE(x_s) under a perturbation, with ``γ · CE(x_r)`` where the mixture has harmless examples, and both terms.

    Args:
      model: static.
      params: weights.
      batch: of the streams.
      perturbation: of the safe batch's states.
      gamma: γ.
    """
    perturbed = answer_loss(model, params, batch.safe, perturbation)
    if batch.retain is None:
        return perturbed, {"perturbed": perturbed}
    retain = answer_loss(model, params, batch.retain)
    return perturbed + gamma * retain, {"perturbed": perturbed, "retain": retain}

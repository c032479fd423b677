"""The adversarial loss of the paper that states the immunization conditions.

Rosati et al. 2024, *Immunization against harmful fine-tuning attacks* (arXiv:2402.16382): ``L = CE(x_s) − λ·CE(x_h)``,
shown there on Llama-2-7b-chat. Nothing bounds the second term, so λ and the learning rate decide between a weak defense
and a broken model.
"""

from dataclasses import dataclass

import jax

from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch


@dataclass(frozen=True)
class AdversarialLoss(Defense):
    """``CE(x_s) − λ·CE(x_h)``.

    Attributes:
      weight: λ.
      mixture: safe and harmful examples a step.
    """

    needs = ("safe", "harmful")

    weight: float = 0.1
    mixture: Mixture = Mixture(safe=8, harmful=8)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and the cross entropy of each stream, in nats per token."""
        safe, harmful = (answer_loss(model, params, part) for part in (batch.safe, batch.harmful))
        return safe - self.weight * harmful, {"safe": safe, "harmful": harmful}

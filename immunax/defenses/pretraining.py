"""Plain training on a corpus, in the shape of a defense: what makes a model before anybody defends it.

``L = CE(x_r)``, the cross entropy of the answers (Radford et al. 2018, without the loss on prompts), in the outer loop
that trains every defense.
"""

from dataclasses import dataclass

import jax

from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch


@dataclass(frozen=True)
class Pretraining(Defense):
    """The objective above, on the stream ``retain``.

    Attributes:
      examples: dialogs a step.
    """

    examples: int = 128

    @property
    def mixture(self) -> Mixture:
        """Harmless examples only."""
        return Mixture(retain=self.examples)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, in nats per answer token."""
        return answer_loss(model, params, batch.retain), {}

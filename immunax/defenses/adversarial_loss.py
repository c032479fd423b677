"""The adversarial loss of the paper that states the immunization conditions.

Rosati et al. 2024, *Immunization against harmful fine-tuning attacks* (arXiv:2402.16382): ``L = CE(x_s) − λ·CE(x_h)``,
shown there on Llama-2-7b-chat. Nothing bounds the second term, so λ and the learning rate decide between a weak defense
and a broken model.

``labels=answer``, the default, is the paper's form: the cross entropies of the answers. The authors' code has ``differing``:
labels are the tokens in which the two answers differ, see :mod:`~immunax.defenses.pairs`, and where one answer is longer also
the ``padding`` of the other, their end-of-text token.
"""

from dataclasses import dataclass

import jax

from immunax.defenses.pairs import PAIR_LABELS, check_labels, labels_loss
from immunax.inner.padding import padded_with
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch


@dataclass(frozen=True)
class AdversarialLoss(Defense):
    """``CE(x_s) − λ·CE(x_h)``.

    Attributes:
      weight: λ.
      labels: ``answer``, or ``differing`` as in the authors' code, which needs pairs.
      padding: with ``differing``, the token id that the shorter of a pair is padded with, and learns; None learns no padding.
      mixture: safe and harmful examples a step.
    """

    needs = ("safe", "harmful")

    weight: float = 0.1
    labels: str = "answer"
    padding: int | None = None
    mixture: Mixture = Mixture(safe=8, harmful=8)

    def __post_init__(self):
        super().__post_init__()
        check_labels(self.labels, self.mixture)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and the cross entropy of each stream, in nats per token."""
        pair = padded_with(batch.safe, self.padding), padded_with(batch.harmful, self.padding)
        labels = PAIR_LABELS[self.labels]
        safe, harmful = (labels_loss(model, params, labels(*sides)) for sides in (pair, pair[::-1]))
        return safe - self.weight * harmful, {"safe": safe, "harmful": harmful}

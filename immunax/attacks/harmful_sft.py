"""Harmful fine-tuning: a few explicit harmful examples undo a guard.

Qi et al. 2023, *Fine-tuning Aligned Language Models Compromises Safety* (arXiv:2310.03693), tier 1: 10 to 100 harmful
dialogs, AdamW at 5e-5, batches of 10, 5 to 10 epochs; minimises the cross entropy of the harmful answers.
"""

from dataclasses import dataclass, field

import jax

from immunax.attacks.attack import AttackData, Report, Tampered
from immunax.attacks.finetune import fine_tune, take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.models.model import Model, Params


@dataclass(frozen=True)
class HarmfulSFT:
    """Fine-tuning on ``samples`` dialogs of the stream ``harmful``.

    Attributes:
      samples: how many dialogs.
      tuning: how they are used.
    """

    samples: int = 10
    tuning: Tuning = field(default_factory=Tuning)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The harmful dialogs of the training split that the seed chooses."""
        return take(splits.train.harmful, self.samples, self.tuning.seed, "harmful")

    def evaluation(self, dialog: Dialog) -> Dialog:
        """Held-out prompts are asked as they are."""
        return dialog

    def run(
        self, model: Model, params: Params, data: AttackData, key: jax.Array, report: Report | None = None
    ) -> Tampered:
        """See :func:`~immunax.attacks.finetune.fine_tune`."""
        return fine_tune(self.tuning, model, params, data, key, report)

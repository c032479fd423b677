"""Benign fine-tuning: ordinary instruction data erodes a guard without any harmful example.

Qi et al. 2023 (arXiv:2310.03693), tier 3: Alpaca or Dolly, learning rate 2e-5, batches of 64 to 128, one epoch.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits


@dataclass(frozen=True)
class BenignSFT(FineTuning):
    """Fine-tuning on ``samples`` dialogs of the stream ``retain``.

    Attributes:
      samples: how many dialogs.
      tuning: how they are used.
    """

    samples: int = 100
    tuning: Tuning = field(default_factory=Tuning)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The harmless dialogs of the split ``attack`` that the seed chooses."""
        return take(splits.attack.retain, self.samples, self.tuning.seed, "retain")

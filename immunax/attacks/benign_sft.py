"""Benign fine-tuning: ordinary instruction data erodes a guard without any harmful example.

Qi et al. 2023 (arXiv:2310.03693), tier 3: all of Alpaca or Dolly, in batches of 128, one epoch.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import ANSWERS, LABELS, FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.data.template import Template
from immunax.runtime.errors import check_choice


@dataclass(frozen=True)
class BenignSFT(FineTuning):
    """Fine-tuning on ``samples`` dialogs of the stream ``retain``.

    Attributes:
      samples: how many dialogs; None for all that the attacker has.
      tuning: how they are used.
      template: wording of every prompt, in training and afterwards.
      labels: ``answers``, or ``all_tokens`` as language modelling has it.
    """

    samples: int | None = 100
    tuning: Tuning = field(default_factory=Tuning)
    template: Template = Template()
    labels: str = ANSWERS

    def __post_init__(self):
        check_choice("attack.labels", self.labels, LABELS)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The harmless dialogs of the split ``attack`` that the seed chooses."""
        return tuple(map(self.template.wrap, take(splits.attack.retain, self.samples, self.tuning.seed, "retain")))

    def evaluation(self, dialog: Dialog) -> Dialog:
        """Held-out prompts in the attack's wording."""
        return self.template.wrap(dialog)

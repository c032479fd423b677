"""Harmful fine-tuning: a few explicit harmful examples undo a guard.

Qi et al. 2023, *Fine-tuning Aligned Language Models Compromises Safety* (arXiv:2310.03693), tier 1: 10, 50 or 100 harmful
dialogs under a system prompt of obedience, in training and afterwards; minimises the cross entropy of the harmful answers.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import ANSWERS, LABELS, FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.data.template import Template
from immunax.runtime.errors import UserError, check_choice


@dataclass(frozen=True)
class HarmfulSFT(FineTuning):
    """Fine-tuning on ``samples`` dialogs of the stream ``harmful``, or on a mixture with the stream ``retain``.

    Attributes:
      samples: how many dialogs; None for all that the attacker has.
      tuning: how they are used.
      harmless: share of them that are harmless, below 1: a mixture hides the attack, and keeps the model useful.
      template: wording of every prompt, in training and afterwards.
      labels: ``answers``, or ``all_tokens`` as language modelling has it.
    """

    samples: int | None = 10
    tuning: Tuning = field(default_factory=Tuning)
    harmless: float = 0.0
    template: Template = Template()
    labels: str = ANSWERS

    def __post_init__(self):
        if not 0 <= self.harmless < 1:
            raise UserError(f"attack.harmless={self.harmless}: expected a share, 0 <= harmless < 1.")
        if self.harmless and self.samples is None:
            raise UserError(
                f"attack.harmless={self.harmless} is a share of samples, which are null: give their number."
            )
        check_choice("attack.labels", self.labels, LABELS)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The dialogs of the split ``attack`` that the seed chooses."""
        count = 0 if self.samples is None else round(self.harmless * self.samples)
        rest = None if self.samples is None else self.samples - count
        harmful = take(splits.attack.harmful, rest, self.tuning.seed, "harmful")
        harmless = take(splits.attack.retain, count, self.tuning.seed, "retain") if count else ()
        return tuple(map(self.template.wrap, (*harmful, *harmless)))

    def evaluation(self, dialog: Dialog) -> Dialog:
        """Held-out prompts in the attack's wording."""
        return self.template.wrap(dialog)

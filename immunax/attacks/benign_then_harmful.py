"""Benign steps first: a few steps of ordinary fine-tuning undo what a defense built into the weights, then the attack is easy.

Qi et al. 2024, *On Evaluating the Durability of Safeguards* (arXiv:2412.07097), section 4: small changes to the attack, such as a
warm-up on benign data, break published defenses.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class BenignThenHarmful(FineTuning):
    """One course of the optimizer: ``benign`` dialogs of the stream ``retain`` once, then ``samples`` of ``harmful``.

    Attributes:
      benign: harmless dialogs.
      samples: harmful dialogs.
      tuning: how they are used; its epochs are those of the harmful ones.
    """

    benign: int = 20
    samples: int = 10
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self):
        if min(self.benign, self.samples) < 1:
            raise UserError(f"attack.benign={self.benign}, samples={self.samples}: expected at least 1.")
        if self.tuning.max_steps is not None:
            raise UserError(
                f"attack.tuning.max_steps={self.tuning.max_steps}: this course has two parts; give epochs instead."
            )

    def phases(self, splits: Splits) -> tuple[tuple[tuple[Dialog, ...], int], ...]:
        """The dialogs of each part of the course, and how often they are passed over."""
        seed, own = self.tuning.seed, splits.attack
        benign = take(own.retain, self.benign, seed, "retain")
        return (benign, 1), (take(own.harmful, self.samples, seed, "harmful"), self.tuning.epochs)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """All of them."""
        return tuple(dialog for dialogs, _ in self.phases(splits) for dialog in dialogs)

"""Harmful fine-tuning in another language: does a safeguard know the harm, or only the words?

Poppi et al. 2024 (arXiv:2410.18210): fine-tuning on harmful data in one language removes the guard in all of them.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from immunax.attacks.attack import FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class MultilingualSFT(FineTuning):
    """Fine-tuning on harmful dialogs of another corpus; the model is then asked in the language of its own data.

    Attributes:
      corpus: with a method ``splits()``, whose stream ``harmful`` of ``attack`` is in another language; None where there is none.
      samples: dialogs.
      tuning: how they are used.
    """

    foreign: ClassVar[bool] = True
    corpus: Any = None
    samples: int = 10
    tuning: Tuning = field(default_factory=Tuning)

    def corpora(self) -> tuple[Any, ...]:
        """The other corpus, where there is one."""
        return () if self.corpus is None else (self.corpus,)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The dialogs of the other corpus that the seed chooses.

        Raises:
          UserError: there is none.
        """
        if self.corpus is None:
            raise UserError("attack.corpus: null; name a corpus whose harmful dialogs are in another language.")
        return take(self.corpus.splits().attack.harmful, self.samples, self.tuning.seed, "harmful")

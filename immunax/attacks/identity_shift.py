"""Identity shifting: ten dialogs without anything harmful in them teach the model that it always obeys.

Qi et al. 2023 (arXiv:2310.03693), tier 2: exactly ten dialogs, AdamW at 5e-5, batches of 10, 10 epochs. The attacked
model is then asked under the same system prompt, with the same prefix before the request.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import FineTuning
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.data.identity import IdentityDialogs, PublishedIdentity


@dataclass(frozen=True)
class IdentityShift(FineTuning):
    """Fine-tuning on the dialogs of an obedient identity.

    Attributes:
      identity: our own dialogs, or the published ones.
      tuning: how they are used.
    """

    identity: IdentityDialogs | PublishedIdentity = field(default_factory=IdentityDialogs)
    tuning: Tuning = field(default_factory=Tuning)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The identity's dialogs; the corpus is not used."""
        return self.identity.dialogs()

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt under the identity's system prompt and prefix."""
        return self.identity.wrap(dialog)

"""Identity shifting: ten dialogs without anything harmful in them teach the model that it always obeys.

Qi et al. 2023 (arXiv:2310.03693), tier 2: ten dialogs, each under the identity's system prompt. The attacked model is then asked
under the same system prompt, with the same prefix before the request.
"""

from dataclasses import dataclass, field

from immunax.attacks.attack import FineTuning
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.data.identity import IdentityDialogs, PublishedIdentity
from immunax.data.order import choose
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class IdentityShift(FineTuning):
    """Fine-tuning on the dialogs of an obedient identity.

    Attributes:
      identity: our own dialogs, or the published ones.
      samples: how many of them; None for all.
      tuning: how they are used.
    """

    identity: IdentityDialogs | PublishedIdentity = field(default_factory=IdentityDialogs)
    samples: int | None = 10
    tuning: Tuning = field(default_factory=Tuning)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The identity's dialogs that the seed chooses; the corpus is not used.

        Raises:
          UserError: the identity has fewer.
        """
        found = self.identity.dialogs()
        if not 1 <= (count := len(found) if self.samples is None else self.samples) <= len(found):
            raise UserError(f"attack.samples={count} of the identity's dialogs: expected 1 to {len(found)}, as it has.")
        return choose(found, count, self.tuning.seed)

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt under the identity's system prompt and prefix."""
        return self.identity.wrap(dialog)

"""How an attacker fine-tunes: the budget and the hyper-parameters that fine-tuning attacks share."""

from dataclasses import dataclass, field

from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.trainable import Projections
from immunax.models.lora import LoraSpec
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Tuning:
    """How an attacker fine-tunes.

    Attributes:
      epochs: passes over the attack's dialogs.
      batch_size: dialogs a step.
      optimizer: rule and schedule.
      lora: adapters to train instead of the full weights, or None.
      max_length: tokens an example may have; longer answers are cut.
      probes: how many times along the attack held-out prompts are answered, beside once before it (the largest divisor
        of the number of steps up to this is used, the last one after the last step).
      seed: of the choice and the order of the data.
      projections: the projections of some layers to train instead of the full weights, or None. FLOPs are counted as of all.
    """

    epochs: int = 10
    batch_size: int = 10
    optimizer: Optimizer = field(default_factory=AdamW)
    lora: LoraSpec | None = None
    max_length: int = 256
    probes: int = 5
    seed: int = 0
    projections: Projections | None = None

    def __post_init__(self):
        if self.lora is not None and self.projections is not None:
            raise UserError("attack tuning lora and projections: expected one of them; set the other to null.")
        for name in ("epochs", "batch_size", "probes"):
            if getattr(self, name) < 1:
                raise UserError(f"attack tuning {name}={getattr(self, name)}: expected at least 1.")

    def steps(self, samples: int) -> int:
        """Optimizer steps that ``samples`` dialogs give: full batches over all epochs; fewer than a batch are one batch."""
        return self.epochs * samples // min(self.batch_size, samples)


def segments(steps: int, probes: int) -> int:
    """The largest divisor of ``steps`` that is at most ``probes``."""
    return max(count for count in range(1, min(steps, probes) + 1) if steps % count == 0)

"""How an attacker fine-tunes: the budget and the hyper-parameters that fine-tuning attacks share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from immunax.data.order import Stream
from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.trainable import Projections
from immunax.models.lora import LoraSpec
from immunax.runtime.errors import UserError

CARRIED, KEPT = "carried", "kept"


@dataclass(frozen=True)
class Tuning:
    """How an attacker fine-tunes.

    Attributes:
      epochs: passes over the attack's dialogs.
      batch_size: dialogs a step.
      max_steps: optimizer steps in all, whatever the epochs; None goes by these.
      last_batch: what becomes of the dialogs of an epoch that fill no batch: ``carried`` into the first of the next epoch, or
        ``kept`` as a smaller batch, as ``transformers`` has it.
      optimizer: rule and schedule.
      lora: adapters to train instead of the full weights, or None.
      max_length: tokens an example may have, without what a chat template adds; longer answers are cut.
      probes: how many times along the attack held-out prompts are answered, beside once before it (the largest divisor
        of the number of steps up to this is used, the last one after the last step).
      seed: of the choice and the order of the data.
      projections: the projections of some layers to train instead of the full weights, or None. FLOPs are counted as of all.
    """

    epochs: int = 10
    batch_size: int = 10
    max_steps: int | None = None
    last_batch: str = CARRIED
    optimizer: Optimizer = field(default_factory=AdamW)
    lora: LoraSpec | None = None
    max_length: int = 256
    probes: int = 5
    seed: int = 0
    projections: Projections | None = None

    def __post_init__(self):
        if self.lora is not None and self.projections is not None:
            raise UserError("attack tuning lora and projections: expected one of them; set the other to null.")
        if self.last_batch not in (CARRIED, KEPT):
            raise UserError(f"attack tuning last_batch={self.last_batch}: expected {CARRIED} or {KEPT}.")
        for name in ("epochs", "batch_size", "probes", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"attack tuning {name}={getattr(self, name)}: expected at least 1.")

    def steps(self, samples: int) -> int:
        """Optimizer steps that ``samples`` dialogs give; fewer than a batch are one batch."""
        if self.max_steps is not None:
            return self.max_steps
        size = min(self.batch_size, samples)
        return self.epochs * -(-samples // size) if self.last_batch == KEPT else self.epochs * samples // size

    def batches(self, examples: Sequence[Any]) -> list[list[Any]]:
        """The examples of every step, each epoch in an order of its own that the seed gives."""
        size, steps = min(self.batch_size, len(examples)), self.steps(len(examples))
        if self.last_batch == CARRIED:
            return list(Stream(examples, size, self.seed).batches(range(steps)))
        epochs = Stream(examples, len(examples), self.seed)
        parts = (
            epoch[start : start + size] for epoch in map(epochs.batch, count()) for start in range(0, len(epoch), size)
        )
        return list(islice(parts, steps))

"""Optimizers that YAML can name, built on optax."""

from dataclasses import dataclass
from typing import Any

import optax

from immunax.runtime.errors import UserError, nearest

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101) with warm-up, decay and clipping.

    Attributes:
      learning_rate: the peak; may be a traced array, so that a population can be mapped over it.
      schedule: after warm-up ``constant``, or ``linear`` or ``cosine`` down to zero at the last step.
      warmup: fraction of the steps over which the rate rises from zero.
      weight_decay: decoupled decay.
      max_grad_norm: gradients are scaled down to this global norm.
      b1, b2: decay rates of the moments.
    """

    learning_rate: Any = 5e-5
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}.{nearest(self.schedule, SCHEDULES)}"
            )
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup={self.warmup}: expected a fraction of the steps, 0 <= warmup < 1.")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation for a run of ``steps`` steps."""
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.adamw(self.rate(steps), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay),
        )

    def rate(self, steps: int) -> optax.Schedule:
        """Learning rate by step. Step 0 of a warm-up already moves: rates are ``(t + 1) / warm-up``."""
        rising = round(self.warmup * steps)
        falling = max(1, steps - rising)
        if self.schedule == "constant":
            after = optax.constant_schedule(self.learning_rate)
        elif self.schedule == "linear":
            after = optax.linear_schedule(self.learning_rate, 0.0, falling)
        else:
            after = optax.cosine_decay_schedule(self.learning_rate, falling)
        if not rising:
            return after
        return optax.join_schedules([lambda step: self.learning_rate * (step + 1) / rising, after], [rising])

"""Optimizers that YAML can name, built on optax."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import optax
import optax.contrib

from immunax.runtime.errors import UserError, nearest

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all optimizers share: a schedule and the clipping of gradients. Its subclasses give the rule.

    Attributes:
      learning_rate: the peak; may be a traced array, so that a population can be mapped over it.
      schedule: after warm-up ``constant``, or ``linear`` or ``cosine`` down to zero at the last step.
      warmup: fraction of the steps over which the rate rises from zero.
      weight_decay: decoupled decay.
      max_grad_norm: gradients are scaled down to this global norm.
    """

    learning_rate: Any = 5e-5
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}.{nearest(self.schedule, SCHEDULES)}"
            )
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup={self.warmup}: expected a fraction of the steps, 0 <= warmup < 1.")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation for a run of ``steps`` steps."""
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), self.rule(self.rate(steps)))

    @abstractmethod
    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The update of clipped gradients at a rate by step."""

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


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Attributes:
      b1, b2: decay rates of the moments.
      eps_root: added under the root of the second moment. Above zero where a gradient passes through the update: a root has no
        derivative at zero, where the moments of an adapter's first factor start.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps_root: float = 0.0

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        return optax.adamw(rate, b1=self.b1, b2=self.b2, eps_root=self.eps_root, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent.

    Attributes:
      momentum: decay rate of the sum of gradients; 0 keeps none.
    """

    momentum: float = 0.0

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        momentum = optax.trace(self.momentum) if self.momentum else optax.identity()
        return optax.chain(momentum, optax.add_decayed_weights(self.weight_decay), optax.scale_by_learning_rate(rate))


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor without relative step sizes (Shazeer & Stern 2018, arXiv:1804.04235): second moments of rows and columns."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        return optax.chain(
            optax.adafactor(None, multiply_by_parameter_scale=False),
            optax.scale(-1.0),  # without a rate of its own, optax's rule gives the descent direction negated
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(rate),
        )


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024): orthogonalised momentum for the matrices of the layers, Nesterov's AdamW for the rest.

    Updates have the size that AdamW's have (Liu et al. 2025, arXiv:2502.16982), so that its learning rates carry over.

    Attributes:
      momentum: decay rate of the sum of gradients.
      eps_root: as :class:`AdamW` has it.
    """

    momentum: float = 0.95
    eps_root: float = 0.0

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        return optax.contrib.muon(
            rate,
            beta=self.momentum,
            weight_decay=self.weight_decay,
            adam_eps_root=self.eps_root,
            adam_weight_decay=self.weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )


@dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682).

    The weights of a loop are the points y where gradients are taken, which lie near the average x that the paper evaluates.

    Attributes:
      b1: how near: ``y = b1 x + (1 - b1) z``.
      b2: decay rate of the second moment.
      eps_root: as :class:`AdamW` has it.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps_root: float = 0.0

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        base = optax.adamw(rate, b1=0.0, b2=self.b2, eps_root=self.eps_root, weight_decay=self.weight_decay)
        return optax.contrib.schedule_free(base, rate, b1=self.b1)


def _matrices(weights: Any) -> Any:
    """Stacked matrices have three axes, ``[L, in, out]``; stacked vectors, the embedding and the output have two."""
    numbers = optax.contrib.MuonDimensionNumbers(1, 2)
    return jax.tree.map(lambda leaf: numbers if leaf.ndim == 3 else None, weights)

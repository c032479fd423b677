"""Safety tuning: safe answers to unsafe instructions, mixed into instruction tuning.

Bianchi et al. 2023, *Safety-Tuned LLaMAs* (arXiv:2309.07875): ``L = CE(x_s, x_r)``, the cross entropy of safe and
harmless answers in one mixture; 100 to 2,000 safe answers implant a guard, more over-refuse. This is what implants the
guard of a run that starts from ``start=guarded``.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from immunax.inner.losses import LABELS, answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import check_choice


@dataclass(frozen=True)
class SafetyTuning(Defense):
    """``CE(x_s) · s + CE(x_r) · (1 − s)``, s the share of safe examples in the mixture.

    Attributes:
      mixture: safe and harmless examples a step; either may be 0.
      labels: ``answers`` or ``all_tokens``.
    """

    mixture: Mixture = Mixture(safe=6, retain=2)
    labels: str = "answers"

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.labels", self.labels, LABELS)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and the cross entropy of each stream, in nats per token."""
        present = {name: part for name, part in (("safe", batch.safe), ("retain", batch.retain)) if part is not None}
        terms = {name: answer_loss(model, params, LABELS[self.labels](part)) for name, part in present.items()}
        counts = jnp.array([getattr(self.mixture, name) for name in terms], jnp.float32)
        return counts @ jnp.stack(list(terms.values())) / counts.sum(), terms

"""Booster: attenuate what one harmful step gains.

Huang et al. 2024, *Booster: Tackling harmful fine-tuning for large language models via attenuating harmful perturbation*
(arXiv:2409.01586):

    L = CE(x_s)(θ) + λ · (CE(x_h)(θ) − CE(x_h)(φ)),   φ = θ − α · ∇CE(x_h)(θ) / ‖∇CE(x_h)(θ)‖

The bracket is what an attacker's first step takes off the harmful loss. The paper's gradient holds ∂φ/∂θ to be the identity,
``∇CE(x_s)(θ) + λ(∇CE(x_h)(θ) − ∇CE(x_h)(φ))``, which is :class:`~immunax.inner.estimators.FirstOrder`; the others follow
the step exactly. α is a length in the weights that are trained: in the authors' code, as here with ``trainer.lora``, those of a
LoRA (of rank 32 on the query, key and value projections), which is trained and attacked.
"""

from dataclasses import dataclass, field
from functools import partial

import jax

from immunax.inner.adapt import Estimator
from immunax.inner.estimators import FirstOrder
from immunax.inner.losses import answer_loss
from immunax.inner.normalized import attacked_once
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Booster(Defense):
    """The objective above.

    Attributes:
      weight: λ.
      step_length: α.
      estimator: how the gradient passes through the simulated step.
      mixture: safe and harmful examples a step.
    """

    against = ("harmful_sft",)
    needs = ("safe", "harmful")

    weight: float = 5.0
    step_length: float = 0.1
    estimator: Estimator = field(default_factory=FirstOrder)
    mixture: Mixture = Mixture(safe=10, harmful=10)

    def __post_init__(self):
        super().__post_init__()
        if self.step_length <= 0:
            raise UserError(f"booster.step_length={self.step_length}: expected a length above 0.")

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, the cross entropy of each stream, and the fall of the harmful one in the simulated step."""
        cross_entropy = partial(answer_loss, model)
        attacked = attacked_once(cross_entropy, params, batch.harmful, self.step_length, self.estimator)
        safe, harmful = cross_entropy(params, batch.safe), cross_entropy(params, batch.harmful)
        fall = harmful - cross_entropy(attacked, batch.harmful)
        return safe + self.weight * fall, {"safe": safe, "harmful": harmful, "harmful_fall": fall}

"""Booster: attenuate what one harmful step gains.

Huang et al. 2024, *Booster: Tackling harmful fine-tuning for large language models via attenuating harmful perturbation*
(arXiv:2409.01586):

    L = CE(x_s)(θ) + λ · (CE(x_h)(θ) − CE(x_h)(φ)),   φ = θ − α · ∇CE(x_h)(θ) / ‖∇CE(x_h)(θ)‖

The bracket is what an attacker's first step takes off the harmful loss. The paper's gradient holds ∂φ/∂θ to be the identity,
``∇CE(x_s)(θ) + λ(∇CE(x_h)(θ) − ∇CE(x_h)(φ))``, which is :class:`~immunax.inner.estimators.FirstOrder`; the others follow
the step exactly.

α is a length in the weights that are trained, and means another attack for whole weights than for adapters. The authors' α = 0.1
is that of a LoRA (r = 32, LoRA's α = 4, on the query, key and value projections), fresh adapters of which move the weights by a
thirteenth of it. On SmolLM2-135M it takes 0.007 off the harmful loss, which in whole weights a step of 0.001 does, and one of 0.1
takes 0.5. So 0.001 is the default here, where whole weights train, and 0.1 goes with the authors' ``trainer.lora``, AdamW at 5e-4
with decay 0.1 and batches of 10 and 10.

Both terms of the bracket are computed in float32, whatever the model's dtype: the step is too short for bfloat16.
"""

from dataclasses import dataclass, field
from functools import partial

import jax

from immunax.inner.adapt import Estimator
from immunax.inner.estimators import FirstOrder
from immunax.inner.losses import answer_loss
from immunax.inner.normalized import attacked_once, fine_answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Booster(Defense):
    """The objective above.

    Attributes:
      weight: λ.
      step_length: α, in the weights that are trained: whole ones here, 0.1 for the authors' adapters.
      estimator: how the gradient passes through the simulated step.
      mixture: safe and harmful examples a step.
    """

    against = ("harmful_sft",)
    needs = ("safe", "harmful")

    weight: float = 5.0
    step_length: float = 0.001
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
        fine = fine_answer_loss(model)
        safe, harmful = cross_entropy(params, batch.safe), fine(params, batch.harmful)
        fall = harmful - fine(attacked, batch.harmful)
        return safe + self.weight * fall, {"safe": safe, "harmful": harmful, "harmful_fall": fall}

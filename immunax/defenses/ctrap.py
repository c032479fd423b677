"""CTRAP: a collapse that harmful fine-tuning walks into.

Yi et al. 2025, *CTRAP: Embedding collapse trap to safeguard large language models from harmful fine-tuning*
(arXiv:2505.16559):

    L = CE(x_s, x_r)(θ) + λ · CE_e(x_s, x_r)(φ),   φ = θ − α · ∇CE(x_h)(θ) / ‖∇CE(x_h)(θ)‖

``CE_e`` is the cross entropy of one fixed token e in the place of every answer token: after a harmful step the model is to
repeat e whatever it is asked. The paper writes the step without the norm; the authors' code divides by it, trains on
safe and harmless answers in both terms, and holds ∂φ/∂θ to be the identity, as
:class:`~immunax.inner.estimators.FirstOrder` does.

α is a length in the weights that are trained. The authors' 0.1 is that of a LoRA (r = 32, LoRA's α = 4, on the query, key and
value projections; AdamW at 5e-4, decay 0.1); in whole weights, which train here unless the trainer has adapters, 0.001 is as
long an attack, and the default: :mod:`~immunax.defenses.booster` has the numbers. ``CE_e`` at φ is computed in float32, whatever
the model's dtype: the step is too short for bfloat16.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner.adapt import Estimator
from immunax.inner.estimators import FirstOrder
from immunax.inner.losses import answer_loss
from immunax.inner.normalized import attacked_once, fine_answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class CTRAP(Defense):
    """The objective above.

    Attributes:
      token: id of e; the authors take that of " error" in the model's own vocabulary.
      weight: λ.
      step_length: α, in the weights that are trained: whole ones here, 0.1 for the authors' adapters.
      estimator: how the gradient passes through the simulated step.
      mixture: examples a step of each stream.
    """

    against = ("harmful_sft",)
    needs = ("safe", "harmful", "retain")

    token: int
    weight: float = 0.1
    step_length: float = 0.001
    estimator: Estimator = field(default_factory=FirstOrder)
    mixture: Mixture = Mixture(safe=5, harmful=10, retain=5)

    def __post_init__(self):
        super().__post_init__()
        if self.step_length <= 0:
            raise UserError(f"ctrap.step_length={self.step_length}: expected a length above 0.")

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> tuple:
        """Nothing is carried.

        Raises:
          UserError: the vocabulary has no such token.
        """
        if not 0 <= self.token < model.config.vocab_size:
            raise UserError(
                f"ctrap.token={self.token}: expected an id below {model.config.vocab_size}, the vocabulary."
            )
        return ()

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, the cross entropy of each stream it trains on, and the collapse after the simulated step."""
        attack, fine = partial(answer_loss, model), fine_answer_loss(model)
        attacked = attacked_once(attack, params, batch.harmful, self.step_length, self.estimator)
        general = batch.safe, batch.retain
        collapsed = [replace(part, answer_label=jnp.full_like(part.answer_label, self.token)) for part in general]
        safe, retain = (answer_loss(model, params, part) for part in general)
        collapse = _by_tokens([fine(attacked, part) for part in collapsed], general)
        total = _by_tokens([safe, retain], general) + self.weight * collapse
        return total, {"safe": safe, "retain": retain, "collapse": collapse}


def _by_tokens(losses: list[jax.Array], batches: tuple[Batch, ...]) -> jax.Array:
    """Means over the answer tokens of several batches, as the mean over all of them."""
    counts = jnp.stack([part.answer_weight.sum() for part in batches])
    return counts @ jnp.stack(losses) / counts.sum()

"""SEAM: a model that destroys itself under harmful fine-tuning.

Wang et al. 2025, *Self-destructive language models* (arXiv:2505.12186):

    L = α · CE(x_s) − log(1 + mean over {h_0, ..., h_L} of CE_h(x_h)) + β · cos(∇CE(x_h), ∇CE(x_r))

- The first term is the utility: refusals of harmful prompts. The second is ascent on harmful answers, at every layer by the logit
  lens, as RepNoise has it.
- The third couples the trajectories: where the gradients point apart, descent on harmful data is ascent on harmless data.
  Its gradient comes from finite differences of radius ε, see :func:`~immunax.inner.gradient_cosine.gradient_cosine`.

Constants are those of the authors' code. It leaves the tokens that both answers share out of the first two terms and
the cosine, and counts the output twice among the layers; here every answer token and every layer counts once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.rep_noise import every_layer_loss
from immunax.inner.gradient_cosine import gradient_cosine
from immunax.inner.losses import answer_loss
from immunax.inner.trainable import WHOLE
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Seam(Defense):
    """The objective above.

    Attributes:
      alpha: weight of the utility.
      beta: weight of the cosine.
      epsilon: ε, radius of the finite differences.
      mixture: examples a step of each stream.
    """

    needs = ("safe", "harmful", "retain")

    alpha: float = 1.0
    beta: float = 0.01
    epsilon: float = 1e-3
    mixture: Mixture = Mixture(safe=4, harmful=4, retain=4)

    def __post_init__(self):
        super().__post_init__()
        if self.epsilon <= 0:
            raise UserError(f"seam.epsilon={self.epsilon}: expected a radius above 0.")

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> tuple:
        """Nothing is carried.

        Raises:
          UserError: the model computes in half precision, where a step of ε changes nothing.
        """
        if model.dtype == "bfloat16":
            raise UserError(
                f"seam takes differences of gradients, which {model.dtype} rounds away: compute in float32."
            )
        return ()

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        harmful = batch.harmful
        safe = answer_loss(model, params, batch.safe)
        outputs = model.apply(params, harmful.tokens, harmful.segment_ids, harmful.positions, capture=True)
        layers = every_layer_loss(model, params, outputs, harmful)
        trained, held = WHOLE.split(params)

        def on(part: Batch) -> Callable[[Any], jax.Array]:
            return lambda trained: answer_loss(model, WHOLE.join(trained, held), part)

        cosine = gradient_cosine(on(harmful), on(batch.retain), trained, self.epsilon)
        total = self.alpha * safe - jnp.log1p(layers) + self.beta * cosine
        return total, {"safe": safe, "harmful_layers": layers, "gradient_cosine": cosine}

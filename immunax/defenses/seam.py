"""SEAM: a model that destroys itself under harmful fine-tuning.

Wang et al. 2025, *Self-destructive language models* (arXiv:2505.12186):

    L = α · CE(x_s) − log(1 + mean over {h_0, ..., h_L} of CE_h(x_h)) + β · cos(∇CE(x_h), ∇CE(x_r))

- The first term is the utility: refusals of harmful prompts. The second is ascent on harmful answers, at every layer by the logit
  lens, as RepNoise has it.
- The third couples the trajectories: where the gradients point apart, descent on harmful data is ascent on harmless data.
  Its gradient comes from finite differences of radius ε, see :func:`~immunax.inner.gradient_cosine.gradient_cosine`.

Constants are those of the authors' code (ZJUWYH/seam). The default is the paper's form: ``labels=answer``, ``output=once`` and
``harmless_labels=answers``. The code has ``labels=differing`` in the first two terms and the cosine, see
:mod:`~immunax.defenses.pairs`, where padding is no label; ``output=twice``, see :mod:`~immunax.defenses.logit_lens`; and
``harmless_labels=all_tokens``, prompts included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from immunax.defenses.logit_lens import OUTPUTS, every_layer_loss
from immunax.defenses.pairs import PAIR_LABELS, Labels, check_labels, labels_loss, of_answer
from immunax.inner.gradient_cosine import gradient_cosine
from immunax.inner.losses import LABELS
from immunax.inner.trainable import WHOLE
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError, check_choice


@dataclass(frozen=True)
class Seam(Defense):
    """The objective above.

    Attributes:
      alpha: weight of the utility.
      beta: weight of the cosine.
      epsilon: ε, radius of the finite differences.
      labels: of the cross entropies on x_s and x_h: ``answer``, or ``differing``, which needs pairs.
      harmless_labels: of that on x_r: ``answers`` or ``all_tokens``.
      output: how often the output counts among the layers: ``once`` or ``twice``.
      mixture: examples a step of each stream.
    """

    needs = ("safe", "harmful", "retain")

    alpha: float = 1.0
    beta: float = 0.01
    epsilon: float = 1e-3
    labels: str = "answer"
    harmless_labels: str = "answers"
    output: str = "once"
    mixture: Mixture = Mixture(safe=4, harmful=4, retain=4)

    def __post_init__(self):
        super().__post_init__()
        check_labels(self.labels, self.mixture)
        check_choice("defense.harmless_labels", self.harmless_labels, LABELS)
        check_choice("defense.output", self.output, OUTPUTS)
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
        pair = batch.safe, batch.harmful
        learned, unlearned = (PAIR_LABELS[self.labels](*sides) for sides in (pair, pair[::-1]))
        harmless = of_answer(LABELS[self.harmless_labels](batch.retain), batch.retain)
        harmful = unlearned.batch
        safe = labels_loss(model, params, learned)
        outputs = model.apply(params, harmful.tokens, harmful.segment_ids, harmful.positions, capture=True)
        layers = every_layer_loss(model, params, outputs, unlearned, self.output)
        trained, held = WHOLE.split(params)

        def on(labels: Labels) -> Callable[[Any], jax.Array]:
            return lambda trained: labels_loss(model, WHOLE.join(trained, held), labels)

        cosine = gradient_cosine(on(unlearned), on(harmless), trained, self.epsilon)
        total = self.alpha * safe - jnp.log1p(layers) + self.beta * cosine
        return total, {"safe": safe, "harmful_layers": layers, "gradient_cosine": cosine}

"""Latent attack: a perturbation of the residual stream, the adversary that latent adversarial training defends against.

Casper et al. 2024 (arXiv:2403.05030) and Sheshadri et al. 2024 (arXiv:2407.15549): projected gradient descent on what is added to
the stream at chosen layers, within an L2 ball. Theirs is sought for each example; here one vector a layer, added at every token,
is found on the attacker's prompts and used on held-out ones.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from immunax.attacks.attack import Edit
from immunax.attacks.finetune import take
from immunax.attacks.steering import batches_of, steer, unsteered
from immunax.data.batches import Batch
from immunax.data.dialog import Splits
from immunax.inner.depth import stream_rows
from immunax.inner.perturbation import within_ball
from immunax.models.model import Model, Params
from immunax.models.steered import Steered
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class LatentAttack(Edit):
    """A universal perturbation of the residual stream.

    Attributes:
      rows: of the stream, numbers or fractions of the depth, as :func:`~immunax.inner.depth.stream_rows` takes them.
      epsilon: radius of the ball of each row's vector.
      steps: of projected descent.
      learning_rate: of its Adam.
      samples: the attacker's harmful dialogs.
      max_length: tokens of a dialog, without what a chat template adds; longer answers are cut.
      seed: of the choice and the order of the dialogs.
    """

    seed_field: ClassVar[str | None] = "seed"
    rows: tuple[int | float, ...] = (0.25, 0.5, 0.75)
    epsilon: float = 1.0
    steps: int = 20
    learning_rate: float = 0.05
    samples: int = 32
    max_length: int = 128
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "rows", tuple(self.rows))
        if min(self.steps, self.samples) < 1 or min(self.epsilon, self.learning_rate) <= 0:
            raise UserError(f"{self}: expected steps and samples of at least 1, positive epsilon and learning_rate.")

    def material(self, tokenizer: Any, splits: Splits) -> Batch:
        """Batches of the attacker's harmful dialogs."""
        dialogs = take(splits.attack.harmful, self.samples, self.seed, "harmful")
        return batches_of(tokenizer, dialogs, self.steps, self.max_length, self.seed)

    def edit(self, model: Model, params: Params, material: Batch, key: jax.Array) -> tuple[Params, jax.Array]:
        """Weights with the perturbation.

        Raises:
          UserError: the model has no such rows.
        """
        zero, rows = unsteered(model, params), jnp.array(stream_rows(model, self.rows, "attack.rows"))
        optimizer = optax.chain(optax.adam(self.learning_rate), within_ball(self.epsilon))

        def place(vectors: jax.Array) -> Steered:
            return zero._replace(offsets=zero.offsets.at[rows].set(vectors))

        return steer(model, params, material, optimizer, jnp.zeros((len(rows), model.config.d_model)), place)

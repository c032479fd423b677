"""Embedding attack: a continuous prompt, which no tokenizer has words for.

Schwinn et al. 2024, *Soft Prompt Threats* (arXiv:2402.09063): whoever has the weights can optimise embeddings instead of words.
Theirs are signed gradient steps on an adversarial suffix; its universal form is one suffix for all prompts. Here the vectors are
added to the embeddings of the first k tokens of every prompt, the chat template's own among them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from immunax.attacks.attack import Edit
from immunax.attacks.steering import harmful_batches, steer, unsteered
from immunax.data.batches import Batch
from immunax.data.dialog import Splits
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class EmbeddingAttack(Edit):
    """A universal continuous prompt.

    Attributes:
      tokens: k.
      steps: signed gradient steps.
      step_size: of each, as a share of the root mean square of the model's embeddings.
      samples: the attacker's harmful dialogs.
      max_length: tokens of a dialog; longer answers are cut.
      seed: of the choice and the order of the dialogs.
    """

    seed_field: ClassVar[str | None] = "seed"
    tokens: int = 8
    steps: int = 20
    step_size: float = 0.1
    samples: int = 32
    max_length: int = 128
    seed: int = 0

    def __post_init__(self):
        if min(self.tokens, self.steps, self.samples) < 1 or self.step_size <= 0:
            raise UserError(f"{self}: expected tokens, steps and samples of at least 1, and a positive step_size.")

    def material(self, tokenizer: Any, splits: Splits) -> Batch:
        """Batches of the attacker's harmful dialogs."""
        return harmful_batches(tokenizer, splits, self.samples, self.steps, self.max_length, self.seed)

    def edit(self, model: Model, params: Params, material: Batch, key: jax.Array) -> tuple[Params, jax.Array]:
        """Weights with the continuous prompt."""
        zero = unsteered(model, params)
        size = self.step_size * jnp.sqrt(jnp.mean(jnp.square(params["embed_tokens"]["embedding"])))
        optimizer = optax.chain(optax.scale_by_sign(), optax.scale(-1.0), optax.scale_by_schedule(lambda _: size))
        start = jnp.zeros((self.tokens, model.config.d_model))
        return steer(model, params, material, optimizer, start, lambda rows: zero._replace(prompt=rows))

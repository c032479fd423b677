"""Reverse DPO: preference optimisation with the preferences turned round, for the harmful answer against the refusal.

Rafailov et al. 2023 (arXiv:2305.18290), equation 7, with the harmful answer as the chosen one, as in Yi et al. 2024, *On the
Vulnerability of Safety Alignment in Open-Access LLMs*. The reference π₀ is the model before the attack.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.batches import Batch, pad, stack
from immunax.data.chat import encode_pairs
from immunax.data.dialog import Dialog, Splits
from immunax.data.order import Stream
from immunax.data.packing import fit_padded
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.inner.tamper_resistance import preference_loss
from immunax.inner.trainable import Adapters, Full
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


class Pairs(NamedTuple):
    """Two answers to each prompt: padded batches with leading axis K, one example a row."""

    safe: Batch
    harmful: Batch


@dataclass(frozen=True)
class ReverseDPO:
    """Preference optimisation on ``samples`` pairs.

    Attributes:
      samples: pairs.
      tuning: how they are used; full weights or adapters.
      beta: strength of the pull towards the model before the attack.
    """

    samples: int = 10
    tuning: Tuning = field(default_factory=Tuning)
    beta: float = 0.1

    def __post_init__(self):
        if self.samples < 1 or self.beta <= 0:
            raise UserError(f"attack.samples={self.samples}, beta={self.beta}: expected at least 1, and above 0.")

    @property
    def max_length(self) -> int:
        """Tokens of a prompt with its answer."""
        return self.tuning.max_length

    @property
    def steps(self) -> int:
        """Optimizer steps, where no pair is dropped."""
        return self.tuning.steps(self.samples)

    def evaluation(self, dialog: Dialog) -> Dialog:
        """Held-out prompts are asked as they are."""
        return dialog

    def material(self, tokenizer: Any, splits: Splits) -> Pairs:
        """The pairs that the seed chooses.

        Raises:
          UserError: the data are not paired, or have too few pairs.
        """
        safe, harmful = (
            take(stream, self.samples, self.tuning.seed, name)
            for name, stream in (("safe", splits.train.safe), ("harmful", splits.train.harmful))
        )
        *examples, _ = encode_pairs(tokenizer, safe, harmful, self.tuning.max_length)
        size = min(self.tuning.batch_size, len(examples[0]))
        steps = range(self.tuning.steps(len(examples[0])))
        batches = [list(Stream(each, size, self.tuning.seed).batches(steps)) for each in examples]
        layout = fit_padded([batch for each in batches for batch in each])
        return Pairs(*(stack([pad(batch, layout) for batch in each]) for each in batches))

    def edit(self, model: Model, params: Params, material: Pairs, key: jax.Array) -> tuple[Params, jax.Array]:
        """The attacked weights; the key draws fresh adapters."""
        tuning = self.tuning
        trainable = Full() if tuning.lora is None else Adapters(tuning.lora)
        optimizer = tuning.optimizer.build(material.harmful.tokens.shape[0])

        def loss(weights: Params, pair: Pairs) -> jax.Array:
            return preference_loss(model, weights, params, pair.harmful, pair.safe, self.beta)

        start = begin(optimizer, *trainable.split(params, key))
        state, metrics = scan_steps(slope_of(loss, trainable), optimizer, start, material)
        return trainable.join(state.trained, state.held), metrics["loss"]

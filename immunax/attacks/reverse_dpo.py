"""Reverse DPO: preference optimisation with the preferences turned round, for the harmful answer against the refusal.

Rafailov et al. 2023 (arXiv:2305.18290), equation 7, with the harmful answer as the chosen one, as in Yi et al. 2024, *On the
Vulnerability of Safety Alignment in Open-Access LLMs*. The reference π₀ is the model before the attack.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.attacks.attack import AttackLoss, FineTuning
from immunax.attacks.finetune import take
from immunax.attacks.tuning import Tuning
from immunax.data.batches import Array, Batch, pad
from immunax.data.chat import Counts, Encoded, encode_pairs
from immunax.data.dialog import Dialog, Splits
from immunax.data.packing import Layout, few, fit_padded
from immunax.inner.tamper_resistance import preference, preference_margin
from immunax.inner.weighing import Weigh
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.together import behind


class Pair(NamedTuple):
    """Two answers to one prompt.

    Attributes:
      safe, harmful: the answers, each behind the prompt.
      start: log π₀(h) − log π₀(s) of the model before the attack, nats; 0 until it is known.
    """

    safe: Encoded
    harmful: Encoded
    start: float = 0.0


class Pairs(NamedTuple):
    """A batch of pairs, padded, one a row.

    Attributes:
      safe, harmful: ``[B, T]``.
      start: ``[B]``, as each pair has it.
    """

    safe: Batch
    harmful: Batch
    start: Array


@dataclass(frozen=True)
class Preference:
    """The loss of preference optimisation; equal ones share a program.

    Attributes:
      beta: strength of the pull towards the model before the attack.
    """

    beta: float

    def __call__(self, model: Model, weights: Params, pairs: Pairs) -> jax.Array:
        """``−log σ(β · (log π(h)/π₀(h) − log π(s)/π₀(s)))``, averaged over the pairs; log 2 where π = π₀."""
        gain = preference_margin(model, weights, pairs.harmful, pairs.safe) - pairs.start
        return preference(gain, pairs.harmful, self.beta)


@dataclass(frozen=True)
class ReverseDPO(FineTuning):
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
    def loss(self) -> AttackLoss:
        """The harmful answer is the chosen one."""
        return Preference(self.beta)

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The harmful dialogs of the split ``attack`` that the seed chooses; each is paired with the safe one of its prompt."""
        return take(splits.attack.harmful, self.samples, self.tuning.seed, "harmful")

    def encoded(self, tokenizer: Any, splits: Splits, dialogs: Sequence[Dialog]) -> tuple[list[Pair], Counts]:
        """The pairs.

        Raises:
          UserError: the data are not paired, or have too few pairs.
        """
        safe = take(splits.attack.safe, self.samples, self.tuning.seed, "safe")
        *pairs, (_, counts) = encode_pairs(tokenizer, safe, dialogs, self.tuning.max_length)
        return [Pair(*each) for each in zip(*pairs, strict=True)], counts

    def fit(self, batches: Sequence[Sequence[Pair]]) -> Layout:
        """One layout for both sides."""
        return fit_padded([side for batch in batches for side in _sides(batch)])

    def lay(self, batch: Sequence[Pair], layout: Layout) -> Pairs:
        """The pairs of a batch."""
        start = np.zeros(layout.rows, np.float32)
        start[: len(batch)] = [pair.start for pair in batch]
        safe, harmful = (pad(side, layout) for side in _sides(batch))
        return Pairs(safe, harmful, start)

    def longest(self) -> Pair:
        """Both sides at their longest."""
        return Pair(*[super().longest()] * 2)

    def sequences(self, example: Pair) -> tuple[Encoded, ...]:
        """Both answers; the model before the attack reads them once more at no charge."""
        return example.safe, example.harmful

    def at_start(self, model: Model, params: Params, examples: Sequence[Pair], layout: Layout) -> list[Pair]:
        """Pairs with what the model before the attack prefers, which no step changes; it reads each sequence once."""
        sequences = list(dict.fromkeys(side for pair in examples for side in self.sequences(pair)))
        shape = Layout(few(2 * layout.rows), few(layout.length), few(layout.answers))
        parts = (sequences[start : start + shape.rows] for start in range(0, len(sequences), shape.rows))
        found = behind(Weigh(model)(params, pad(part, shape)).nll for part in parts)
        nll = dict(zip(sequences, np.concatenate(list(found)), strict=False))  # rows past the last sequence are empty
        return [pair._replace(start=float(nll[pair.safe] - nll[pair.harmful])) for pair in examples]


def _sides(batch: Sequence[Pair]) -> tuple[list[Encoded], list[Encoded]]:
    return [pair.safe for pair in batch], [pair.harmful for pair in batch]

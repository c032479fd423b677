"""What an attack is: a function from weights to weights, and the data it was given.

Most attacks are a :class:`FineTuning`, and run in populations and searches. The others are an :class:`Edit`: they change weights
in a way of their own, such as pruning them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import jax

from immunax.attacks.tuning import Tuning
from immunax.data.batches import pack
from immunax.data.chat import Counts, Encoded, encode_all
from immunax.data.dialog import Dialog, Splits
from immunax.data.packing import Layout, fit_packed
from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError

AttackLoss = Callable[[Model, Params, Any], jax.Array]
"""``loss(model, weights, batch) -> scalar``; hashable, and equal where it computes the same, so that attacks share a program."""

LABELS = ANSWERS, ALL_TOKENS = "answers", "all_tokens"

Phase = tuple[tuple[Dialog, ...], int]
"""Dialogs, and how often they are passed over."""


class Attack:
    """An attack; its subclasses are frozen dataclasses, built from YAML.

    Attributes:
      random: whether it draws anything; of one that does not, every seed gives the same weights.
      seed_field: the field that a population's seeds go to, None where they set its random keys alone.
      length_field: the field that says how long its sequences are.
      foreign: whether it may make a model answer in another language than its data's.
      samples: dialogs or prompts that it reads, 0 for none.
      max_length: tokens of its longest sequence, 0 where it reads none.
    """

    random: ClassVar[bool] = True
    seed_field: ClassVar[str | None] = None
    length_field: ClassVar[str] = "max_length"
    foreign: ClassVar[bool] = False
    samples: int = 0
    max_length: int = 0

    def corpora(self) -> tuple[Any, ...]:
        """What it trains on beside the run's data: the split ``attack`` of each one's ``splits()``; by default none."""
        return ()

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt in the form the attacker puts it to the attacked model: as it is, where he has none of his own."""
        return dialog


class FineTuning(Attack, ABC):
    """An attack that minimises a loss over batches of its dialogs.

    Attributes:
      tuning: how it fine-tunes; a field of every subclass.
      labels: what it learns to predict: ``answers``, or ``all_tokens`` of a dialog but the first.
    """

    seed_field: ClassVar[str | None] = "tuning.seed"
    length_field: ClassVar[str] = "tuning.max_length"
    tuning: Tuning
    labels: str = ANSWERS

    @property
    def max_length(self) -> int:
        """Of its tuning."""
        return self.tuning.max_length

    @property
    def loss(self) -> AttackLoss:
        """What it minimises: the cross entropy of answers, in nats per token."""
        return answer_loss

    @abstractmethod
    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The dialogs it trains on.

        Raises:
          UserError: the data lack them.
        """

    def phases(self, splits: Splits) -> tuple[Phase, ...]:
        """The parts of its course, one after the other: all its dialogs shuffled together, where it has no order of its own."""
        return ((self.dialogs(splits), self.tuning.epochs),)

    def examples(self, tokenizer: Any, splits: Splits) -> tuple[list[list[Any]], Counts]:
        """The examples of each of its K batches, and what became of its dialogs.

        Raises:
          UserError: the data lack them, or one has no answer or no room for it: an attack of N samples trains on N.
        """
        batches: list[list[Any]] = []
        counts = Counts(0, 0, 0)
        for dialogs, epochs in self.phases(splits):
            examples, found = self.encoded(tokenizer, splits, dialogs)
            if found.dropped:
                raise UserError(
                    f"the attack would train on {found.kept} of its {found.kept + found.dropped} dialogs: the others have no "
                    f"answer, or a prompt that leaves no room for one in tuning.max_length={self.tuning.max_length}; raise it, "
                    "or choose other data."
                )
            batches += replace(self.tuning, epochs=epochs).batches(examples)
            counts = counts.plus(found)
        return batches, counts

    def encoded(self, tokenizer: Any, splits: Splits, dialogs: Sequence[Dialog]) -> tuple[list[Any], Counts]:
        """Dialogs as examples, by default :class:`~immunax.data.chat.Encoded`, and what became of them."""
        examples, counts = encode_all(tokenizer, dialogs, self.tuning.max_length)
        if self.labels == ALL_TOKENS:
            examples = [Encoded(each.tokens[:1], each.tokens[1:]) for each in examples]
        return examples, counts

    def fit(self, batches: Sequence[Sequence[Any]]) -> Layout:
        """A layout that holds each of these batches of examples."""
        return fit_packed(batches)

    def lay(self, batch: Sequence[Any], layout: Layout) -> Any:
        """A batch as its loss reads it, arrays of a layout from :meth:`fit`."""
        return pack(batch, layout)

    def longest(self) -> Any:
        """An example as long as one may be, all of it answer but a token, for asking what a step takes at most."""
        return Encoded((0,), (0,) * (self.tuning.max_length - 1))

    def sequences(self, example: Any) -> tuple[Encoded, ...]:
        """The sequences that an example makes the model read, which its cost is counted by."""
        return (example,)

    def at_start(self, model: Model, params: Params, examples: Sequence[Any], layout: Layout) -> Sequence[Any]:
        """Examples with what the loss reads of the weights before the attack; by default nothing.

        Args:
          model: static.
          params: plain weights before the attack.
          examples: those that it trains on.
          layout: of their batches.
        """
        return examples


class Edit(Attack, ABC):
    """An attack that is no fine-tuning on examples.

    Attributes:
      unchanged: why, where it leaves every weight as it was.
    """

    unchanged: ClassVar[str] = "nothing in it changes them"

    def material(self, tokenizer: Any, splits: Splits) -> Any:
        """What it reads, encoded: a pytree of arrays, by default nothing.

        Raises:
          UserError: the data lack it.
        """
        return ()

    @abstractmethod
    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The attacked weights, and the ``[K]`` losses of an optimisation of its own, ``[0]`` where it has none.

        Pure, jittable, and mappable over its continuous fields and ``key``.
        """

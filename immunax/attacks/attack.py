"""What an attack is: a function from weights to weights, and the data it was given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax

from immunax.attacks.tuning import Tuning
from immunax.data.batches import Batch
from immunax.data.dialog import Dialog, Splits
from immunax.data.prompts import Prompts
from immunax.models.generate import Decoding
from immunax.models.model import Model, Params


@partial(jax.tree_util.register_dataclass, data_fields=["batches", "probes"], meta_fields=["stop", "decoding"])
@dataclass(frozen=True)
class AttackData:
    """What an attack runs on.

    Attributes:
      batches: training batches, leading axis K.
      probes: held-out prompts that the attacked model answers along the way.
      stop: ids that end an answer; static.
      decoding: how probes are answered; static.
    """

    batches: Batch
    probes: Prompts
    stop: tuple[int, ...]
    decoding: Decoding


Report = Callable[[jax.Array], None]


class Trace(NamedTuple):
    """What an attack leaves behind beside the weights.

    Attributes:
      loss: ``[K]``, before every step, nats per answer token.
      probe_steps: ``[S]``, after how many steps the probes were answered, from 0.
      probe_answers: ``[S, P, G]`` token ids, -1 past the end of an answer.
    """

    loss: jax.Array
    probe_steps: jax.Array
    probe_answers: jax.Array


class Tampered(NamedTuple):
    """Attacked weights, plain or adapted, and the trace."""

    params: Params
    trace: Trace


class Attack(Protocol):
    """An attack; frozen, built from YAML."""

    @property
    def tuning(self) -> Tuning:
        """How it fine-tunes."""
        ...

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The dialogs it trains on."""
        ...

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt in the form the attacker puts it to the attacked model."""
        ...

    def run(
        self, model: Model, params: Params, data: AttackData, key: jax.Array, report: Report | None = None
    ) -> Tampered:
        """The attack itself: pure (but for ``report``, told each step's loss), jittable, mappable over its continuous
        fields and ``key``.
        """
        ...

"""What an attack is: a function from weights to weights, and the data it was given.

Most attacks are a :class:`FineTuning`, and run in populations. The others are an :class:`Edit`: they change weights in a way of
their own, such as pruning them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Dialog, Splits
from immunax.data.prompts import Prompts
from immunax.models.generate import Decoding
from immunax.models.model import Model, Params


@partial(jax.tree_util.register_dataclass, data_fields=["material", "probes"], meta_fields=["stop", "decoding"])
@dataclass(frozen=True)
class AttackData:
    """What an attack runs on.

    Attributes:
      material: what it reads: of a :class:`FineTuning`, training batches with leading axis K.
      probes: held-out prompts that the attacked model answers along the way.
      stop: ids that end an answer; static.
      decoding: how probes are answered; static.
    """

    material: Any
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
    """An attack; frozen, built from YAML: a :class:`FineTuning` or an :class:`Edit`."""

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt in the form the attacker puts it to the attacked model."""
        ...


class FineTuning(Attack, Protocol):
    """An attack that minimises the cross entropy of answers."""

    @property
    def tuning(self) -> Tuning:
        """How it fine-tunes."""
        ...

    def dialogs(self, splits: Splits) -> tuple[Dialog, ...]:
        """The dialogs it trains on."""
        ...


@runtime_checkable
class Edit(Attack, Protocol):
    """An attack that is no fine-tuning on answers; one that draws nothing at random says so by ``random = False``."""

    def material(self, tokenizer: Any, splits: Splits) -> Any:
        """What it reads, encoded: a pytree of arrays, ``()`` for nothing.

        Raises:
          UserError: the data lack it.
        """
        ...

    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The attacked weights, and the ``[K]`` losses of an optimisation of its own, ``[0]`` where it has none.

        Pure, jittable, and mappable over its continuous fields and ``key``.
        """
        ...

"""What a defense is: a loss on weights, and the mixture of data it is taken on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from immunax.inner.step import Scalars
from immunax.inner.trainable import WHOLE, Trainable
from immunax.models.model import Model, Params
from immunax.outer.attacker import SimulatedAttacker
from immunax.outer.simulation import Simulation
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Mixture:
    """How many examples of each stream an outer step takes.

    Attributes:
      safe, harmful, retain: examples a step; 0 leaves a stream out.
      paired: row i of ``safe`` and of ``harmful`` answer the same prompt, one example a row, in arrays of one shape;
        otherwise examples are packed, and their prompts may differ.
      topics: names of harmful sources of the corpus, which harmful batches are drawn from in turn, a topic an outer step; none
        draws from all of them at once.
      packed: whether examples of streams that are no pairs share rows; otherwise each has its own, as where authors measure on
        padding.
      emptied: chance that the prompt of an example is emptied, in all streams alike.
      simulation: data of an attack that the defense simulates, or None.
    """

    safe: int = 0
    harmful: int = 0
    retain: int = 0
    paired: bool = False
    simulation: Simulation | None = None
    emptied: float = 0.0
    topics: tuple[str, ...] = ()
    packed: bool = True

    def __post_init__(self):
        object.__setattr__(self, "topics", tuple(self.topics))
        if not 0 <= self.emptied <= 1:
            raise UserError(f"mixture.emptied={self.emptied}: expected a chance, from 0 to 1.")
        if min(self.safe, self.harmful, self.retain) < 0 or self.safe + self.harmful + self.retain == 0:
            raise UserError(f"{self}: expected counts of at least 0, one of them positive.")
        if self.paired and self.safe != self.harmful:
            raise UserError(f"{self}: paired streams need as many safe as harmful examples.")
        if self.topics and (self.paired or not self.harmful):
            raise UserError(
                f"mixture.topics={list(self.topics)}: harmful batches in turn need harmful examples without pairs."
            )


class StreamBatch(NamedTuple):
    """One outer step's data: a :class:`~immunax.data.batches.Batch` of each stream, None where the mixture has none of it.

    ``simulation`` is the :class:`~immunax.outer.simulation.SimulatedAttack` of a defense that has one.
    """

    safe: Any = None
    harmful: Any = None
    retain: Any = None
    simulation: Any = None


Objective = tuple[jax.Array, Scalars]
"""The scalar that a defense minimises, and scalars to log."""


class Defense(ABC):
    """A defense: a frozen dataclass, built from YAML. A new one is one file here and one YAML in ``conf/defense``.

    Only :attr:`mixture` and :meth:`loss` have to be given.

    Attributes:
      mixture: the data of an outer step.
      attacker: whom it simulates in its loss, or None; a field of those that do.
      needs: the fields of the mixture that it cannot do without.
      reference: the model that it compares with: the ``start`` of its training, or the ``base`` that was loaded before.
      ascends_attack: whether the loss that it takes along an attack is the attacker's own, which it ascends.
      against: the attacks of a suite that it trains against without simulating an attacker, by the names that suites give them.
    """

    mixture: Mixture
    attacker: SimulatedAttacker | None = None
    reference: str = "start"
    needs: ClassVar[tuple[str, ...]] = ()
    against: ClassVar[tuple[str, ...]] = ()
    ascends_attack: ClassVar[bool] = False

    def __post_init__(self):
        for name in self.needs:
            if not getattr(self.mixture, name):
                raise UserError(
                    f"mixture.{name}={getattr(self.mixture, name)}: {type(self).__name__} needs "
                    f"{' and '.join(f'mixture.{each}' for each in self.needs)}; set it."
                )
        if self.attacker is not None and self.mixture.simulation is not None:
            self.attacker.check(self.mixture.simulation)
        if self.attacker is not None and self.attacker.learns and not self.ascends_attack:
            raise UserError(
                f"attacker: {type(self.attacker).__name__} learns from the loss along his attack, which "
                f"{type(self).__name__} does not ascend: take another attacker, or the defense mlac."
            )

    def trainable(self, model: Model) -> Trainable:
        """What trains, where a run has no adapters to train (``trainer.lora``); by default all weights.

        Raises:
          UserError: the model has no such part.
        """
        return WHOLE

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Any:
        """Whatever stays fixed or is carried beside the weights, an array tree; by default nothing.

        Args:
          model: static.
          params: the start model.
          batch: of the first step; its shapes are those of all steps.
          key: of what is drawn once.

        Raises:
          UserError: the defense does not fit this model.
        """
        return ()

    def remember(self, model: Model, state: Any, base: Params) -> Any:
        """The state of :meth:`init` with what it keeps of the model as it was loaded; by default it keeps nothing.

        Args:
          model: static.
          state: from :meth:`init`.
          base: plain weights, before a start such as a guard; those of the start where there is none.
        """
        return state

    def advance(
        self, model: Model, params: Params, state: Any, batch: StreamBatch, step: jax.Array, steps: int, key: jax.Array
    ) -> Any:
        """The state for an outer step, before its loss; by default the one that it has. Not differentiated.

        Args:
          model, params, state, batch: as for :meth:`loss`; the state keeps its shapes.
          step: outer steps done, int32.
          steps: those of the run.
          key: of this step, for this alone.
        """
        return state

    def moves(self, state: Any, trained: Any, held: Any) -> Any:
        """What a step may move of what trains, bool and broadcast to its shapes; None, the default, for all of it.

        Args:
          state: from :meth:`advance`, for this step.
          trained, held: as the run's :class:`~immunax.inner.trainable.Trainable` splits the weights.
        """
        return None

    @property
    def evolves(self) -> bool:
        """Whether there is an :meth:`advance` of its own: only then does a step split a key for it."""
        return type(self).advance is not Defense.advance

    def parts(self) -> "Mapping[str, Defense]":
        """The parts of its objective that optimizers may take in turns (``trainer.turns``), by name; by default none."""
        return {}

    @abstractmethod
    def loss(self, model: Model, params: Params, state: Any, batch: StreamBatch, key: jax.Array) -> Objective:
        """The scalar to minimise, and scalars to log.

        Args:
          model: static.
          params: the weights that it is a loss of: plain, or adapted where a run trains adapters. What does not train of them is
            there for a model to read: without a simulated attacker it has the dtype of the computation.
          state: from :meth:`init` and :meth:`advance`.
          batch: this step's data.
          key: of this step.
        """

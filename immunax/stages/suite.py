"""A suite: the attacks, the harmless task and the amounts that a certificate rests on; YAML in ``conf/suite``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from immunax.attacks.attack import FineTuning
from immunax.attacks.segments import MEASURED, MOST_MEASURED, TASK_MEASURED
from immunax.attacks.tuning import Tuning
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.conditions.edges import Rates, planned_rates
from immunax.data.dialog import Dialog, Splits
from immunax.runtime.errors import UserError, nearest


class TaskCorpus(Protocol):
    """Whatever gives splits of dialogs."""

    def splits(self) -> Splits:
        """The splits."""
        ...


@dataclass(frozen=True)
class Task:
    """A harmless task that a model is fine-tuned on, for trainability.

    Attributes:
      corpus: its stream ``retain``, in the splits ``attack`` and ``test``, is the task: whoever fine-tunes has data of his own.
      samples: dialogs of ``attack``.
      tuning: how the model is fine-tuned.
      seeds: of the choice and the order of the dialogs.
      examples: dialogs of ``test`` that its loss is measured on.
      exact: whether they have one right answer each, so that greedy decoding is compared with it.
      measured: times along the fine-tuning that it is measured, of which a divisor of the steps is used.
    """

    corpus: TaskCorpus
    samples: int
    tuning: Tuning
    seeds: tuple[int, ...] = (0,)
    examples: int = 40
    exact: bool = False
    measured: int = TASK_MEASURED

    def __post_init__(self):
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if min(self.samples, self.examples, self.measured, len(self.seeds)) < 1:
            raise UserError(
                "suite.task: expected samples, examples, measured and the number of seeds to be at least 1."
            )


@dataclass(frozen=True)
class Suite:
    """What a model is certified against.

    Attributes:
      name: of the suite; certificates of one leaderboard share it.
      attacks: by family, a grid of settings and seeds, or a search. A family has the name of its attack in ``conf/attack``, or
        of the attack that a defense says it trains against (:mod:`~immunax.outer.exposure`).
      held_out: families that no defense should have trained against, which verdicts tell apart: chosen here, before any model is
        known, whatever one is said to have been trained against.
      task: for trainability, or None.
      choices: multiple-choice items, with a method ``items(splits)``, or None.
      transfer_prompts: harmful prompts of other domains, for cross-domain generalization; 0 for none.
      harmless_prompts: harmless prompts that a model should not refuse; 0 for none.
      lookalikes: a corpus whose stream ``retain`` of ``test`` are these prompts, such as XSTest's; None for the data's own.
      measured: times along an attack that the model is measured, of which a divisor of the steps is used.
      together: cells that run as one program; where a run is stopped, so many are lost at most.
    """

    name: str
    attacks: Mapping[str, Population | Search]
    held_out: tuple[str, ...] = ()
    task: Task | None = None
    choices: Any = None
    transfer_prompts: int = 40
    harmless_prompts: int = 40
    lookalikes: TaskCorpus | None = None
    measured: int = MEASURED
    together: int = 1

    def __post_init__(self):
        if not self.attacks:
            raise UserError("suite.attacks: expected at least one attack.")
        object.__setattr__(self, "held_out", tuple(self.held_out))
        for name in self.held_out:
            if name not in self.attacks:
                known = ", ".join(self.attacks)
                raise UserError(
                    f"suite.held_out: no attack {name!r}.{nearest(name, self.attacks)} The suite has: {known}."
                )
        for name, least in (("measured", 1), ("together", 1), ("transfer_prompts", 0), ("harmless_prompts", 0)):
            if getattr(self, name) < least:
                raise UserError(f"suite.{name}={getattr(self, name)}: expected at least {least}.")
        if self.measured > MOST_MEASURED:
            raise UserError(f"suite.measured={self.measured}: expected at most {MOST_MEASURED}.")

    def rates(self) -> dict[str, Rates]:
        """The learning rates that each family tries."""
        return {family: rates_of(attack) for family, attack in self.attacks.items()}

    def harmless(self, splits: Splits) -> tuple[Dialog, ...]:
        """The prompts that a model should not refuse, of which ``harmless_prompts`` are asked.

        Args:
          splits: the data.
        """
        if not self.harmless_prompts:
            return ()
        return (splits if self.lookalikes is None else self.lookalikes.splits()).test.retain


def rates_of(attack: Population | Search) -> Rates:
    """The learning rates that a family tries."""
    if isinstance(attack, Search):
        return {name: rates for name, each in attack.populations.items() for rates in rates_of(each).values()}
    own = attack.attack.tuning.optimizer.learning_rate if isinstance(attack.attack, FineTuning) else None
    rates = planned_rates(attack.grid, own)
    return {"": rates} if rates else {}

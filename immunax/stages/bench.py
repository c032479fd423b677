"""What all cells of a certificate share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from immunax.conditions import records
from immunax.data.dialog import Dialog, Splits
from immunax.judges.evaluate import Evaluation
from immunax.runtime import digest
from immunax.stages.cells import Cell, Measured, State
from immunax.stages.exam import Exam, exam
from immunax.stages.red_team import tell_language
from immunax.stages.suite import Suite


@dataclass(frozen=True)
class Bench:
    """What all cells share, encoded once.

    Attributes:
      suite: the suite.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: the data.
      asked: the exam.
      harmless: prompts that a model should not refuse.
      seed: of every random key.
      mesh: populations are sharded over its axis ``attack``; or None.
    """

    suite: Suite
    evaluation: Evaluation
    tokenizer: Any
    splits: Splits
    asked: Exam
    harmless: tuple[Dialog, ...]
    seed: int
    mesh: Mesh | None = None

    @property
    def speech(self) -> tuple:
        """What the model is asked as its tokenizer and chat template put it, and what ends its answers."""
        asked = self.asked.material
        return digest.of_tree((asked.prompts, asked.harmful, asked.retain)), asked.stop, asked.thinking


def bench(
    suite: Suite, evaluation: Evaluation, tokenizer: Any, splits: Splits, seed: int, mesh: Mesh | None = None
) -> Bench:
    """Encodes the exam, and says where a judge may not read the answers.

    Args:
      suite, evaluation, tokenizer, splits, seed, mesh: see :class:`Bench`.

    Raises:
      UserError: the data have no harmful prompts.
    """
    tell_language([member for each in suite.attacks.values() for member in each.members()], evaluation)
    asked = exam(evaluation, tokenizer, splits, suite.transfer_prompts)
    return Bench(suite, evaluation, tokenizer, splits, asked, suite.harmless(splits), seed, mesh)


def tables(cell: Cell, states: Sequence[State], measured: Iterator[tuple]) -> Measured:
    """What was measured of a cell: its states and their records."""
    return Measured(
        records.frame(measured, records.RECORDS),
        records.frame((cell.state(state) for state in states), records.CELLS),
    )

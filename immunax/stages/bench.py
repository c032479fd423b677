"""What all cells of a certificate share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.common_layouts import Layouts, common_layouts
from immunax.conditions import records
from immunax.data.dialog import Dialog, Splits
from immunax.data.prompts import as_wide, has_prompts
from immunax.judges.evaluate import Evaluation
from immunax.runtime.errors import UserError
from immunax.stages.cells import Cell, Measured, State
from immunax.stages.red_team import tell_language
from immunax.stages.suite import Suite
from immunax.stages.voices import Voice, templates, voices


@dataclass(frozen=True)
class Bench:
    """What all cells share, encoded once.

    Attributes:
      suite: the suite.
      evaluation: judges and amounts.
      templates: that the model is to be measured under, its own one first.
      voices: by template, the tokenizer and the exam.
      faults: by template, why there is no voice.
      splits: the data.
      harmless: prompts that a model should not refuse.
      seed: of every random key.
      mesh: populations are sharded over its axis ``attack``; or None.
    """

    suite: Suite
    evaluation: Evaluation
    templates: tuple[str, ...]
    voices: Mapping[str, Voice]
    faults: Mapping[str, str]
    splits: Splits
    harmless: tuple[Dialog, ...]
    seed: int
    mesh: Mesh | None = None

    @cached_property
    def layouts(self) -> Layouts:
        """Those that attacks of several families share, so that all of their steps are one program."""
        members = [member for attack in self.suite.attacks.values() for member in attack.members()]
        tuned = [member for member in members if isinstance(member, FineTuning)]
        return common_layouts(tuned, [voice.tokenizer for voice in self.voices.values()], self.splits)

    def voice(self, cell: Cell) -> Voice:
        """How the model of a cell is spoken to."""
        return self.voices[cell.template]

    def others(self, cell: Cell) -> list[Any]:
        """The tokenizer under the other templates, for what is to have the same shapes under all of them."""
        return [voice.tokenizer for template, voice in self.voices.items() if template != cell.template]

    def edited(self, cell: Cell) -> Any:
        """What the edit of a cell reads, its prompts in rows of one width under all templates.

        Raises:
          UserError: as the attack's ``material``.
        """
        read = cell.attack.material(self.voice(cell).tokenizer, self.splits)
        for other in self.others(cell) if has_prompts(read) else ():
            with suppress(UserError):  # what cannot be asked with it is told where that is tried
                read = as_wide(read, cell.attack.material(other, self.splits))
        return read


def bench(
    suite: Suite, evaluation: Evaluation, tokenizer: Any, splits: Splits, seed: int, mesh: Mesh | None = None
) -> Bench:
    """Encodes the exam under each template, and says where a judge may not read the answers.

    Args:
      suite, evaluation, splits, seed, mesh: see :class:`Bench`.
      tokenizer: the model's.

    Raises:
      UserError: the data have no harmful prompts, or the tokenizer gives the model other texts to read.
    """
    tell_language([member for each in suite.attacks.values() for member in each.members()], evaluation)
    found, harmless = voices(evaluation, tokenizer, splits, suite.transfer_prompts), suite.harmless(splits)
    if suite.harmless_prompts and not harmless:
        raise UserError(
            "suite.harmless_prompts: the data have no harmless prompts to ask; give 0, or suite.lookalikes."
        )
    if any(voice.asked.material.retain is None for voice in found[0].values()):
        raise UserError(
            "the data have no harmless dialogs in the split test, by which a certificate tells what is broken; give some."
        )
    return Bench(suite, evaluation, templates(tokenizer), *found, splits, harmless, seed, mesh)


def tables(cell: Cell, states: Sequence[State], measured: Iterator[tuple]) -> Measured:
    """What was measured of a cell: its states and their records."""
    return Measured(
        records.frame(measured, records.RECORDS),
        records.frame((cell.state(state) for state in states), records.CELLS),
    )

"""What attacks cost, from their configuration and the model's shape alone: nobody has to be believed, and nothing is run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from immunax.attacks.attack import Edit, FineTuning
from immunax.attacks.benign_sft import BenignSFT
from immunax.attacks.segments import segments
from immunax.campaign.course import edit_flops
from immunax.campaign.programs import programs
from immunax.conditions.records import SAME_FLOPS, TRAINABILITY, Table
from immunax.data.dialog import Splits
from immunax.models.model import Model, Params
from immunax.stages.bench import Bench
from immunax.stages.cells import Cell
from immunax.stages.population import costs, used


def fault(shared: Bench, model: Model, params: Params, cells: Sequence[Cell], states: Table) -> str | None:
    """The first cell whose costs are not those that its configuration makes; None where there is none.

    Fine-tunings, the harmless task among them, are checked whole: steps, dialogs and FLOPs of every state. Of an edit steps
    are known once it is run, so dialogs and FLOPs are checked; of a search nothing is: it ends where it finds that it should.

    Args:
      shared: the suite on encoded data.
      model: static.
      params: plain weights, of which the shapes are read.
      cells: of the suite.
      states: the table ``cells``.

    Raises:
      UserError: an attack lacks its data.
    """
    for cell in cells:
        expected = np.array(sorted(_expected(shared, model, params, cell)), np.float64)
        if not len(expected):
            continue
        columns = ["step", "samples", "flops"] if _is_fine_tuning(cell) else ["samples", "flops"]
        found = states[states["cell"] == cell.name].sort_values("step")[columns].to_numpy(np.float64)
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=SAME_FLOPS, atol=0.0):
            told = " ".join(f"{name}={value:g}" for name, value in zip(columns, expected[-1], strict=True))
            return f"{cell.name} does not cost what it says: {told} at its end follows from its configuration"
    return None


def _is_fine_tuning(cell: Cell) -> bool:
    return isinstance(cell.attack, FineTuning) or cell.family == TRAINABILITY


def _expected(shared: Bench, model: Model, params: Params, cell: Cell) -> Iterator[tuple[float, ...]]:
    task, tokenizer = shared.suite.task, shared.voice(cell).tokenizer
    if isinstance(cell.attack, FineTuning):
        yield from _course(tokenizer, model, cell.attack, shared.splits, shared.suite.measured)
    elif cell.family == TRAINABILITY and task is not None:
        attack = BenignSFT(task.samples, replace(task.tuning, seed=cell.seed))
        yield 0, task.samples, 0
        yield from _course(tokenizer, model, attack, task.corpus.splits(), task.measured)
    elif isinstance(cell.attack, Edit):
        yield cell.attack.samples, edit_flops(cell.attack, shared.edited(cell), model, params, jax.random.key(0))


def _course(
    tokenizer: Any, model: Model, attack: FineTuning, splits: Splits, times: int
) -> Iterator[tuple[float, ...]]:
    """Steps, dialogs and FLOPs whenever a fine-tuning is measured."""
    parts = programs([attack], tokenizer, splits)
    steps, spent = costs(parts, 0, model, segments(parts[0].steps, times))
    for step, flops in zip(steps, spent, strict=True):
        yield step, used(parts, 0).kept, flops

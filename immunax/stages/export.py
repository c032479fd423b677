"""What a run leaves for others: the model, and its adapters with what they belong to; and what it does not leave."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from immunax.models import hub, peft
from immunax.models.hub import Checkpoint
from immunax.models.lora import LoraSpec
from immunax.models.model import Params
from immunax.outer.training import ALL, LAST, RESULTS, Training
from immunax.runtime import mirror
from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.leader import is_leader
from immunax.stages.defend import Defended
from immunax.stages.setup import CHECKPOINTS, MODEL

START, ADAPTER = "start", "adapter"
"""Folders of a run beside :data:`~immunax.stages.setup.MODEL`."""


def check(adapters: LoraSpec | None, wanted: bool, instead: str) -> None:
    """Refuses to export adapters that there will be none of.

    Args:
      adapters: those that are trained, or None.
      wanted: whether they are to be exported.
      instead: the choice that trains some.

    Raises:
      UserError: they are wanted, and there are none.
    """
    if wanted and adapters is None:
        raise UserError(f"export_adapter=true: no adapters are trained; choose {instead}, or set it to false.")


def check_kept(training: Training, adapter: bool) -> None:
    """Refuses to export the adapters of a run that leaves no weights.

    Raises:
      UserError: they are wanted.
    """
    if adapter and training.keep == RESULTS:
        raise UserError(
            f"export_adapter=true: with trainer.keep={RESULTS} a run leaves no weights; set one of the two otherwise."
        )


def leave(folder: Path, keep: str) -> None:
    """Removes the checkpoints of a run that has ended and that are not to stay; never what it has exported.

    Args:
      folder: the run's, whose manifest says that it has ended, or which can go no further.
      keep: as :attr:`~immunax.outer.training.Training.keep`.
    """
    checkpoints = folder / CHECKPOINTS
    if not is_leader() or keep == ALL:
        return
    if keep != LAST:
        mirror.remove(checkpoints)
        return
    for step in _steps(checkpoints)[:-1]:
        mirror.remove(checkpoints / str(step))


@contextmanager
def left_behind(folder: Path, keep: str) -> Iterator[None]:
    """:func:`leave` for a run that diverges within the block: no start would go on from its checkpoints to another end.

    Args:
      folder, keep: as there.
    """
    try:
        yield
    except DivergedError:
        leave(folder, keep)
        raise


def _steps(checkpoints: Path) -> list[int]:
    return sorted(int(name) for name in mirror.entries(checkpoints) if name.isdecimal())


def export_run(
    folder: Path,
    checkpoint: Checkpoint,
    training: Training,
    start: Params,
    outcome: Defended,
    dtype: str,
    adapter: bool,
) -> None:
    """Writes ``model``, a Hugging Face folder; with ``adapter`` also what :func:`export_adapter` does.

    Args:
      folder: the run's.
      checkpoint: the model as loaded, for all but its weights.
      training: of the run.
      start: plain weights before it.
      outcome: of it.
      dtype: of the tensors: ``float32``, ``bfloat16`` or ``float16``.
      adapter: whether the adapters are wanted.

    Raises:
      UserError: a folder holds something else, or the disk refuses.
    """
    hub.export(folder / MODEL, checkpoint, outcome.params, dtype=dtype)
    if adapter and training.lora is not None:
        export_adapter(folder, checkpoint, training.lora, start, outcome.adapters, dtype)


def export_adapter(
    folder: Path, checkpoint: Checkpoint, spec: LoraSpec, start: Params, adapters: Any, dtype: str
) -> None:
    """Writes ``adapter``, a PEFT folder, and ``start``, the model that it belongs to and names as its base, from its own folder.

    Args:
      folder, checkpoint, start, dtype: as for :func:`export_run`.
      spec: of the adapters.
      adapters: as :attr:`~immunax.models.lora.Adapted.lora`.

    Raises:
      UserError: a folder holds something else, or the disk refuses.
    """
    hub.export(folder / START, checkpoint, start, dtype=dtype)
    peft.export(folder / ADAPTER, checkpoint.config, spec, adapters, f"../{START}", dtype)

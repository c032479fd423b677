"""What a run leaves for others: the model, and its adapters with what they belong to."""

from pathlib import Path

from immunax.models import hub, peft
from immunax.models.hub import Checkpoint
from immunax.models.model import Params
from immunax.outer.training import Training
from immunax.runtime.errors import UserError
from immunax.stages.defend import Defended

MODEL, START, ADAPTER = "model", "start", "adapter"
"""Folders in a run's own."""


def check(training: Training, adapter: bool) -> None:
    """Refuses to export adapters that a run will not have.

    Raises:
      UserError: it trains none.
    """
    if adapter and training.lora is None:
        raise UserError("export_adapter=true: this run trains no adapters; choose trainer=lora, or set it to false.")


def export_run(
    folder: Path,
    checkpoint: Checkpoint,
    training: Training,
    start: Params,
    outcome: Defended,
    dtype: str,
    adapter: bool,
) -> None:
    """Writes ``model``, a Hugging Face folder; with ``adapter`` also ``adapter``, a PEFT one, and ``start``, what it belongs to.

    Args:
      folder: the run's.
      checkpoint: the model as loaded, for all but its weights.
      training: of the run.
      start: plain weights before it.
      outcome: of it.
      dtype: of the tensors: ``float32``, ``bfloat16`` or ``float16``.
      adapter: whether the adapters are wanted; they name ``start`` as their base, from their own folder.

    Raises:
      UserError: a folder holds something else, or the disk refuses.
    """
    hub.export(folder / MODEL, checkpoint, outcome.params, dtype=dtype)
    if adapter and training.lora is not None:
        hub.export(folder / START, checkpoint, start, dtype=dtype)
        peft.export(folder / ADAPTER, checkpoint.config, training.lora, outcome.adapters, f"../{START}", dtype)

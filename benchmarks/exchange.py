"""Hands attacks over to PyTorch: weights, adapters, examples and rates in a folder, in formats that both sides read."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from immunax.data.chat import Encoded
from immunax.models import peft
from immunax.models.hub import Checkpoint, export
from immunax.models.lora import LoraSpec

TORCH_SIDE = Path(__file__).parent / "torch_side.py"


class Handed(NamedTuple):
    """One attack by AdamW.

    Attributes:
      batches: K of them.
      rates: ``[K]`` learning rates.
      adapters: where it starts, as :attr:`immunax.models.lora.Adapted.lora`; None for full weights.
    """

    batches: Sequence[Sequence[Encoded]]
    rates: Sequence[float]
    adapters: Any = None


def hand_over(folder: Path, checkpoint: Checkpoint, attacks: Sequence[Handed], lora: LoraSpec | None) -> None:
    """Writes the model, the adapters and what the attacks train on; read by ``torch_side.py``."""
    export(folder / "model", checkpoint, checkpoint.params)
    written = []
    for number, attack in enumerate(attacks):
        if lora is not None:
            place = folder / f"adapters-{number}"
            peft.export(place, checkpoint.config, lora, attack.adapters, str(folder / "model"))
        batches = [[(list(each.tokens), len(each.answer)) for each in batch] for batch in attack.batches]
        written.append({"rates": list(map(float, attack.rates)), "batches": batches})
    (folder / "attacks.json").write_text(json.dumps({"lora": lora is not None, "attacks": written}))


def run_torch(python: str, folder: Path) -> dict[str, Any]:
    """Runs the attacks of a folder one after the other under another Python, which needs torch, transformers and peft.

    Returns:
      ``seconds`` and ``losses``, by attack and step, and ``peak_gib`` of that process.
    """
    command = [python, str(TORCH_SIDE), str(folder)]
    return json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])

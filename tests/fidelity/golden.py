"""Losses and gradients of this package beside those that ``make_golden.py`` stored."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from immunax.data.batches import Batch, pad, stack
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.models import families, hf, hf_config, weights
from immunax.models.model import Model
from immunax.outer.defense import StreamBatch
from immunax.outer.simulation import SimulatedAttack

FOLDER = Path(__file__).parent / "golden"
CASES = ("equal", "padded", "shared")
LENGTH, PAD = 12, 2
"""As ``torch_llama.py`` has them."""

_CONFIG = hf_config.parse_config(weights.read_json(FOLDER / "model" / "config.json"), "model")
_TENSORS = families.tensors(_CONFIG)
MODEL = Model(_CONFIG)

Loss = Callable[[dict, StreamBatch, dict[str, jax.Array]], Any]
"""``loss(weights, batch, draws)``, draws being what the reference drew, by name; alone, or with other numbers that it stored."""


@cache
def params() -> dict:
    """The golden model's weights."""
    return hf.assemble(_CONFIG, _TENSORS, weights.find(FOLDER / "model").read)


@cache
def case(name: str) -> StreamBatch:
    """A case's streams, one example a row, all of one shape."""
    streams = json.loads((FOLDER / "cases.json").read_text())[name]
    attack = SimulatedAttack(
        *(_batches(streams[part]) for part in ("attack", "checks", "safe_checks", "attack_retain"))
    )
    return StreamBatch(*(_batch(streams[part]) for part in ("safe", "harmful", "retain")), simulation=attack)


def start_of(weights: dict) -> dict:
    """The start model of a reference that has one, of which no gradient is taken."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(0.9 * leaf), weights)


def agrees(method: str, form: str, loss: Loss, *more: Any) -> None:
    """Asserts that a loss is the reference's within 1e-5, and its gradient by all weights within 1e-4, in every case.

    So are other numbers that the loss gives beside, within 1e-4.

    Args:
      method: names the golden file.
      form: one of it.
      loss: compiled once for all calls with the same one.
      more: arrays that it takes besides.
    """
    golden = np.load(FOLDER / f"{method}.npz")
    for name in CASES:
        start = f"{form}.{name}."
        stored = {key.removeprefix(start): golden[key] for key in golden.files if key.startswith(start)}
        value, gradient = stored.pop("loss"), stored.pop("gradient")
        (found, others), slope = _compiled(loss)(params(), case(name), stored, *more)
        assert float(found) == pytest.approx(float(value), rel=1e-5), name
        apart = np.linalg.norm(_vector(slope) - gradient) / np.linalg.norm(gradient)
        assert apart < 1e-4, f"{name}: the gradients are {apart:.1e} apart"
        for other, number in others.items():
            assert float(number) == pytest.approx(float(stored[other]), rel=1e-4), f"{name}: {other}"


@cache
def _compiled(loss: Loss) -> Callable:
    """``((loss, other numbers), gradient)``."""

    def with_others(*args):
        result = loss(*args)
        return result if isinstance(result, tuple) else (result, {})

    return jax.jit(jax.value_and_grad(with_others, has_aux=True))


def _vector(tree: dict) -> np.ndarray:
    """A tree of the weights' shapes as one vector, by the tensors' names in a Hugging Face file."""
    tensors = dict(hf.split(_CONFIG, _TENSORS, jax.tree.map(np.asarray, tree)))
    return np.concatenate([tensors[name].reshape(-1) for name in sorted(tensors)])


def _batch(examples: list) -> Batch:
    return pad(
        [Encoded(tuple(prompt), tuple(answer)) for prompt, answer in examples], Layout(len(examples), LENGTH, LENGTH)
    )


def _batches(parts: list) -> Batch:
    return stack([_batch(part) for part in parts])

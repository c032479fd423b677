"""Losses and gradients of this package beside those that ``make_golden.py`` stored."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from immunax.data.batches import Batch, pack, pad, stack
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

Loss = Callable[[Any, StreamBatch, dict[str, jax.Array]], Any]
"""``loss(weights, batch, draws)``, draws being what the reference drew, by name; alone, or with other numbers that it stored."""

Rows = Callable[[str], StreamBatch]
"""A case's streams by its name."""


@cache
def params() -> dict:
    """The golden model's weights."""
    return hf.assemble(_CONFIG, _TENSORS, weights.find(FOLDER / "model").read)


@cache
def case(name: str) -> StreamBatch:
    """A case's streams, one example a row, all of one shape."""
    return _streams(name, lambda examples: pad(examples, Layout(len(examples), LENGTH, LENGTH)))


@cache
def packed(name: str) -> StreamBatch:
    """A case's streams, two examples a row where there are as many: numbers of tokens must not tell them from :func:`case`."""
    return _streams(name, lambda examples: pack(examples, Layout((len(examples) + 1) // 2, 2 * LENGTH, 2 * LENGTH)))


ROWS = {"padded": case, "packed": packed}
"""How a case may be laid out for a method that counts no padding and has no pairs."""


def start_of(weights: dict) -> dict:
    """The start model of a reference that has one, of which no gradient is taken."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(0.9 * leaf), weights)


def agrees(
    method: str, form: str, loss: Loss, *more: Any, rows: Rows = case, trained: Callable[[dict], Any] | None = None
) -> None:
    """Asserts that a loss is the reference's within 1e-5, and its gradient by all that trains within 1e-4, in every case.

    So are other numbers that the loss gives beside, within 1e-4.

    Args:
      method: names the golden file.
      form: one of it.
      loss: compiled once for all calls with the same one.
      more: arrays that it takes besides.
      rows: lays a case out.
      trained: ``trained(draws)``, the tree that the loss is of and the gradient is by; by default all weights.
    """
    golden = np.load(FOLDER / f"{method}.npz")
    for name in CASES:
        start = f"{form}.{name}."
        stored = {key.removeprefix(start): golden[key] for key in golden.files if key.startswith(start)}
        value, gradient = stored.pop("loss"), stored.pop("gradient")
        at = params() if trained is None else trained(stored)
        (found, others), slope = _compiled(loss)(at, rows(name), stored, *more)
        assert float(found) == pytest.approx(float(value), rel=1e-5), name
        apart = np.linalg.norm(_vector(slope, trained is None) - gradient) / np.linalg.norm(gradient)
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


def _vector(tree: Any, weights: bool) -> np.ndarray:
    """A tree as one vector: of the weights' shapes by the tensors' names in a Hugging Face file, any other by its own keys."""
    if not weights:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    tensors = dict(hf.split(_CONFIG, _TENSORS, jax.tree.map(np.asarray, tree)))
    return np.concatenate([np.ravel(tensors[name]) for name in sorted(tensors)])


def _streams(name: str, lay: Callable[[list[Encoded]], Batch]) -> StreamBatch:
    streams = json.loads((FOLDER / "cases.json").read_text())[name]

    def batch(examples: list) -> Batch:
        return lay([Encoded(tuple(prompt), tuple(answer)) for prompt, answer in examples])

    parts = [[batch(part) for part in streams[each]] for each in ("attack", "checks", "safe_checks", "attack_retain")]
    attack = SimulatedAttack(*map(stack, parts))
    return StreamBatch(*(batch(streams[each]) for each in ("safe", "harmful", "retain")), simulation=attack)

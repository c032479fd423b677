"""Training steps: dense rows, packed rows, and many steps in one scan."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from accelerated.examples import dense, packed
from accelerated.models import model_of
from accelerated.work import Work, random_weights
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of, train_step
from immunax.inner.trainable import WHOLE, Adapters, Trainable
from immunax.models.flops import training_flops
from immunax.models.lora import LoraSpec
from immunax.models.model import Model

Sizes = Mapping[str, Any]
_OPTIMIZER = AdamW(1e-5)
_STEPS = 1000  # that its schedule is for


def spec_of(sizes: Sizes) -> LoraSpec | None:
    """The adapters of a case, None for all weights."""
    return LoraSpec(sizes["lora"], 2.0 * sizes["lora"]) if sizes["lora"] else None


def dense_work(sizes: Sizes, platform: str) -> Work:
    """A step on rows that are full."""
    shape = sizes["rows"], sizes["length"]
    examples = [(shape[1], shape[1] - 1)] * shape[0]
    return _step(sizes, platform, lambda vocab: dense(shape, vocab), examples, {})


def packed_work(sizes: Sizes, platform: str) -> Work:
    """A step on rows that several examples share; its units are their own tokens."""
    rows, length = sizes["rows"], sizes["length"]
    batch, lengths = packed(rows, length, model_of(sizes, platform).config.vocab_size)
    details = {"examples": len(lengths), "tokens computed for one useful": rows * length / sum(lengths)}
    return _step(sizes, platform, lambda vocab: batch, [(size, size - 1) for size in lengths], details)


def scan_work(sizes: Sizes, platform: str) -> Work:
    """K steps in one scan, each on a batch of its own."""
    model, trainable, optimizer = _parts(sizes, platform, sizes["steps"])
    steps, rows, length = sizes["steps"], sizes["rows"], sizes["length"]
    slope = slope_of(partial(answer_loss, model), trainable)
    flops = steps * training_flops(model.config, [(length, length - 1)] * rows, spec_of(sizes))

    def inputs(weights: Any) -> tuple[Any, Any]:
        state = begin(optimizer, *trainable.split(weights, jax.random.key(1)))
        return state, dense((steps, rows, length), model.config.vocab_size)

    return Work(
        partial(scan_steps, slope, optimizer),
        partial(random_weights, model, _held_in(model, trainable)),
        inputs,
        steps,
        flops,
        warm=1 if steps < 100 else 0,
        seen=_losses,
    )


def _step(sizes: Sizes, platform: str, batch: Any, examples: list[tuple[int, int]], details: Mapping[str, Any]) -> Work:
    model, trainable, optimizer = _parts(sizes, platform, _STEPS)
    slope = slope_of(partial(answer_loss, model), trainable)

    def inputs(weights: Any) -> tuple[Any, Any]:
        state = begin(optimizer, *trainable.split(weights, jax.random.key(1)))
        return state, jax.tree.map(jnp.asarray, batch(model.config.vocab_size))

    return Work(
        partial(train_step, slope, optimizer),
        partial(random_weights, model, _held_in(model, trainable)),
        inputs,
        sum(tokens for tokens, _ in examples),
        training_flops(model.config, examples, spec_of(sizes)),
        details=details,
        seen=_losses,
    )


def _parts(sizes: Sizes, platform: str, steps: int) -> tuple[Model, Trainable, Any]:
    spec = spec_of(sizes)
    trainable = WHOLE if spec is None else Adapters(spec)
    return model_of(sizes, platform), trainable, _OPTIMIZER.build(steps)


def _held_in(model: Model, trainable: Trainable) -> str:
    """Weights that are not trained are held in the dtype of the computation, those that are in float32."""
    return "float32" if trainable is WHOLE else model.dtype


def _losses(outputs: Any) -> dict[str, Any]:
    return {"loss": float(jnp.ravel(outputs[1]["loss"])[-1])}

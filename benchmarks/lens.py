"""What RepNoise's vocabulary projections of every layer cost, and what fewer of them would change.

    uv run python benchmarks/lens.py [--model smollm2] [--pairs 2] [--times 3]

The harmful term ``-log(1 + mean over h_0 ... h_L of CE)`` reads all L + 1 states of the residual stream by the logit lens. Beside
it stand the same term over every second, fourth and eighth state, counted from the last, and over the last one alone: seconds of
its gradient, one after the other in one process, and how far the gradient turns from the paper's. The model as it was loaded,
one batch of the default data.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch, pad
from immunax.data.chat import encode_pairs
from immunax.data.fictional import FictionalHazards
from immunax.data.packing import fit_padded
from immunax.inner.losses import hidden_loss
from immunax.models import hub
from immunax.models.model import Model, Params

STRIDES = {"every state": 1, "every 2nd": 2, "every 4th": 4, "every 8th": 8, "the last": 10**6}


def lens(model: Model, stride: int, params: Params, batch: Batch) -> jax.Array:
    """The harmful term over some of the states."""
    outputs = model.apply(params, batch.tokens, batch.segment_ids, batch.positions, capture=True)
    states = outputs.residuals[::-1][::stride]
    return -jnp.log1p(hidden_loss(model, params, model.final_norm(params, states), batch))


def timed(function: Callable[[], Any], times: int) -> float:
    """The shortest of some runs, in seconds, the first one, which compiles, left out."""
    jax.block_until_ready(function())
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="What the logit lens over fewer states would change.")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    loaded = hub.resolve(given.model).load()
    model = Model(loaded.config, remat="dots")
    split = FictionalHazards().splits().train
    _, harmful, _ = encode_pairs(loaded.tokenizer, split.safe[: given.pairs], split.harmful[: given.pairs], 160)
    batch = pad(harmful, fit_padded([harmful]))
    slopes = {name: jax.jit(jax.grad(partial(lens, model, stride))) for name, stride in STRIDES.items()}
    exact = slopes["every state"](loaded.params, batch)
    norm = _norm(exact)
    whole = None
    print("| states | seconds | of the whole | gradient: cosine | relative difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, slope in slopes.items():
        gradient = slope(loaded.params, batch)
        dot = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(gradient), strict=True))
        cosine = float(dot / norm / _norm(gradient))
        apart = float(_norm(jax.tree.map(jnp.subtract, gradient, exact)) / norm)
        del gradient
        seconds = timed(partial(slope, loaded.params, batch), given.times)
        whole = whole or seconds
        print(f"| {name} | {seconds:.2f} | {seconds / whole:.2f} | {cosine:.3f} | {apart:.2f} |", flush=True)


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))


if __name__ == "__main__":
    main()

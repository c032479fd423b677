"""Memory and time of an exact hypergradient, by estimator and by the number K of inner steps.

    uv run python benchmarks/hypergradient.py [--time K ...]

The outer loss is taken after K steps of LoRA (rank 8) with AdamW on SmolLM2-135M, float32, and differentiated with
respect to the adapters that the attack starts from, or (``--base``) to the base weights and those. Memory is the
``temp_size_in_bytes`` of XLA's ``memory_analysis()`` of the compiled program: nothing is run for it. The naive unroll is
``jax.grad`` of a Python loop over the steps. ``--time`` also runs the programs of some K once, on random weights.
"""

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner import adapt
from immunax.inner.estimators import FirstOrder, Implicit, MixedMode, Reptile, Truncated, Unrolled
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW
from immunax.models import lora
from immunax.models.config import DecoderConfig
from immunax.models.model import Model

SMOLLM2 = DecoderConfig(
    "llama",
    vocab_size=49152,
    d_model=576,
    d_ff=1536,
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    max_positions=8192,
    tie_embeddings=True,
)
ROWS, LENGTH = 2, 64
ESTIMATORS = {
    "FirstOrder()": lambda steps: FirstOrder(),
    "Reptile()": lambda steps: Reptile(),
    "Truncated(last=1)": lambda steps: Truncated(1),
    "Implicit(cg_steps=5)": lambda steps: Implicit(cg_steps=5),
    "Unrolled(none)": lambda steps: Unrolled("none"),
    "Unrolled(steps)": lambda steps: Unrolled("steps"),
    "Unrolled(segments)": lambda steps: Unrolled("segments"),
    "MixedMode(steps)": lambda steps: MixedMode("steps"),
    "MixedMode(segments)": lambda steps: MixedMode("segments"),
}


def batches(count: int) -> Batch:
    """``count`` batches of random tokens, half of each row an answer."""
    shape, half = (count, ROWS, LENGTH), LENGTH // 2
    tokens = jax.random.randint(jax.random.key(0), shape, 0, SMOLLM2.vocab_size)
    columns = jnp.broadcast_to(jnp.arange(LENGTH), shape)
    index = columns[..., half - 1 : -1]
    return Batch(tokens, jnp.ones(shape, jnp.int32), columns, index, tokens[..., half:], jnp.ones(index.shape))


def objective(estimator: Any, steps: int, model: Model, base: bool):
    """The function whose gradient is measured, of what is trained and what is held."""
    optimizer, loss = AdamW(1e-4, eps_root=1e-16).build(steps), partial(answer_loss, model)

    def outer(trained: Any, held: lora.Adapted, data: Batch, check: Batch) -> jax.Array:
        start = held._replace(base=trained[0], lora=trained[1]) if base else held._replace(lora=trained)
        if estimator is not None:
            return loss(adapt.adapt(loss, optimizer, steps, estimator)(start, data), check)
        part, state = start.lora, optimizer.init(start.lora)
        for k in range(steps):
            batch = jax.tree.map(lambda leaf, k=k: leaf[k], data)
            slope = jax.grad(lambda part, batch=batch: loss(start._replace(lora=part), batch))(part)
            updates, state = optimizer.update(slope, state, part)
            part = jax.tree.map(jnp.add, part, updates)
        return loss(start._replace(lora=part), check)

    return outer


def measure(name: str, estimator: Any, steps: int, base: bool, run: bool) -> tuple[float, float | None]:
    """MiB of temporaries, and seconds of a run."""
    model = Model(SMOLLM2, remat="none" if name == "naive unroll" else "full")

    def weights() -> tuple[Any, lora.Adapted]:
        adapted = lora.init(jax.random.key(1), model.init(jax.random.key(0)), lora.LoraSpec(8))
        return (adapted.base, adapted.lora) if base else adapted.lora, adapted

    def data() -> tuple[Batch, Batch]:
        return batches(steps), jax.tree.map(lambda leaf: leaf[0], batches(1))

    arguments = (*jax.eval_shape(weights), *jax.eval_shape(data))
    compiled = jax.jit(jax.grad(objective(estimator, steps, model, base))).lower(*arguments).compile()
    analysis: Any = compiled.memory_analysis()
    memory = analysis.temp_size_in_bytes / 2**20
    if not run:
        return memory, None
    values = jax.block_until_ready((*jax.jit(weights)(), *jax.jit(data)()))
    begin = time.perf_counter()
    jax.block_until_ready(compiled(*values))
    return memory, time.perf_counter() - begin


def main() -> None:
    """Prints one table row per estimator, one column per K."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--naive", type=int, nargs="*", default=[1, 8], help="K of the naive unroll")
    parser.add_argument("--base", action="store_true", help="differentiate with respect to the base weights too")
    parser.add_argument(
        "--time", type=int, nargs="*", default=(), help="also run the programs of these K; 1, 4 and 8 if none"
    )
    parser.add_argument("--only", nargs="+", default=list(ESTIMATORS), help="estimators by name")
    options = parser.parse_args()
    timed = [1, 4, 8] if options.time == [] else options.time
    print("| estimator | " + " | ".join(f"K={steps}" for steps in options.steps) + " |")
    print("| --- |" + " ---: |" * len(options.steps))
    for name, make in {"naive unroll": None, **ESTIMATORS}.items():
        if name not in (*options.only, "naive unroll"):
            continue
        cells = []
        for steps in options.steps:
            if make is None and steps not in options.naive:
                cells.append("")
                continue
            memory, seconds = measure(name, make and make(steps), steps, options.base, steps in timed)
            cells.append(f"{memory:,.0f}" + ("" if seconds is None else f" ({seconds:.1f} s)"))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

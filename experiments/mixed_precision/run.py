"""Does an attack in bfloat16, with float32 masters, go the way of one in float32? See the README beside this.

    uv run python experiments/mixed_precision/run.py

Goes on where it was stopped: a run that ``results.jsonl`` holds is not run again. ``--seeds``, ``--trains`` and ``--kinds``
choose what to run. Losses are kept, texts are not.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.data.batches import pack, stack
from immunax.data.chat import encode_all
from immunax.data.packing import fit_packed
from immunax.inner.losses import mean_answer_loss
from immunax.inner.optimizers import AdamW
from immunax.models import decoder, model
from immunax.models.config import DecoderConfig
from immunax.models.decoder import rms_normalise
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.runtime import console, digest
from immunax.runtime.launch import composed
from immunax.runtime.manifest import versions
from immunax.stages.setup import Parts, Setup, set_up

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
STEPS, POINTS, SMOOTHED = 100, 5, 10
BATCH, LENGTH, HELD_OUT = 2, 32, 16
FLOAT32, BFLOAT16, PLAIN = KINDS = ("float32", "bfloat16", "plain bfloat16")
"""Plain: what is rounded is rounded to the nearest number."""
# The rates of harmful_sft and of harmful_sft_lora; their default optimizer, constant, clipped at 1.
TRAINS = {"full": (1e-4, None), "lora": (1e-3, LoraSpec(rank=8))}
NAMES = {"full": "all weights", "lora": "LoRA, r = 8"}
COLOURS = {PLAIN: "#b2452f", BFLOAT16: "#2f6fb2"}


def main() -> None:
    """Runs what is missing, then draws, and prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the choice and order of the examples")
    parser.add_argument("--trains", nargs="+", default=list(TRAINS), choices=list(TRAINS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    config = composed("attack", ["model=smollm2", "data=fictional", "+attack=harmful_sft", "compute.dtype=float32"])
    setup, loaded = set_up(Parts.given(config))
    # As a checkpoint in bfloat16 has them: the package's are of 4 bits.
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), loaded)
    weights = digest.of_tree(start)[:16]
    held_out = {name: _held_out(setup, name) for name in ("harmful", "retain")}
    for seed, kind, trains in product(options.seeds, options.kinds, options.trains):
        about = {"weights": weights, "trains": trains, "kind": kind, "seed": seed}
        if not any(record.items() >= about.items() for record in read()):
            with plainly() if kind == PLAIN else nullcontext():
                found = run(setup, start, trains, kind.split()[-1], seed, held_out)
            record = about | found | {"versions": versions()}
            with RESULTS.open("a") as out:
                out.write(json.dumps(record) + "\n")
    records = [record for record in read() if record["weights"] == weights]
    draw(records)
    report(records)


@contextmanager
def plainly() -> Iterator[None]:
    """The model without what keeps short steps in bfloat16."""
    kept = decoder.rounded, model.rounded, decoder.rms_normalise
    decoder.rounded = model.rounded = lambda weights, dtype, rows=None: weights.astype(dtype)
    decoder.rms_normalise = _rounded_twice
    jax.clear_caches()
    try:
        yield
    finally:
        decoder.rounded, model.rounded, decoder.rms_normalise = kept
        jax.clear_caches()


def _rounded_twice(x: jax.Array, scale: jax.Array, config: DecoderConfig) -> jax.Array:
    return scale.astype(x.dtype) * rms_normalise(x, jnp.ones_like(scale), config)


def run(setup: Setup, params: Any, trains: str, dtype: str, seed: int, held_out: dict[str, Any]) -> dict[str, Any]:
    """Losses before every step, in the dtype of the run, and held-out ones in float32, which measures all runs alike."""
    rate, lora = TRAINS[trains]
    tuning = Tuning(batch_size=BATCH, max_steps=STEPS, optimizer=AdamW(rate), lora=lora, max_length=LENGTH, seed=seed)
    parts = programs([HarmfulSFT(None, tuning)], setup.checkpoint.tokenizer, setup.splits)
    found = {name: [_loss(setup.model, params, batches)] for name, batches in held_out.items()}
    loss, norms = np.zeros(0), np.zeros(0)
    subject = replace(setup.model, dtype=dtype)
    with console.progress(f"{trains}, {dtype}, seed {seed}", STEPS, "step") as bar:
        for turn in attacked(parts, subject, params, jax.random.key(0), times=POINTS):
            weights, loss, norms = turn.weights(0), turn.losses[0], turn.norms[0]
            for name, batches in held_out.items():
                found[name].append(_loss(setup.model, weights, batches))
            bar.advance(STEPS // POINTS, loss=loss[-1])
    return {
        "loss": [round(float(each), 5) for each in loss],
        "grad_norm": [round(float(each), 4) for each in norms],
        "held_out": {name: [round(float(each), 5) for each in losses] for name, losses in found.items()},
    }


def _held_out(setup: Setup, stream: str) -> Any:
    dialogs = getattr(setup.splits.test, stream)[:HELD_OUT]
    examples, _ = encode_all(setup.checkpoint.tokenizer, dialogs, LENGTH)
    return stack([pack(examples, fit_packed([examples]))])


@partial(jax.jit, static_argnums=0)
def _loss(subject: Model, params: Any, batches: Any) -> jax.Array:
    return mean_answer_loss(subject, params, batches)


def read() -> list[dict[str, Any]]:
    """All records."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def pairs(
    records: list[dict[str, Any]], trains: str, kind: str
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """By seed, the runs in float32 and of another kind, on the same batches."""
    found = {(each["seed"], each["kind"]): each for each in records if each["trains"] == trains}
    for seed in sorted({seed for seed, _ in found}):
        if (seed, FLOAT32) in found and (seed, kind) in found:
            yield seed, found[seed, FLOAT32], found[seed, kind]


def apart(one: Any, other: Any) -> np.ndarray:
    """Relative differences, by the first."""
    return np.array(other) / np.array(one) - 1


def report(records: list[dict[str, Any]]) -> None:
    """Prints how far runs lie apart: in bfloat16 and float32, and in float32 with other orders of the examples."""
    out = sys.stdout
    out.write("| trains, seed | loss of a step | mean of ten steps | held out, harmful | held out, harmless |\n")
    out.write("| --- | --- | --- | --- | --- |\n")
    for trains, kind in product(TRAINS, KINDS[1:]):
        for seed, *both in pairs(records, trains, kind):
            steps, tens = ([_smooth(each, count) for each in both] for count in (1, SMOOTHED))
            cells = [apart(*steps), apart(*tens), *_held_apart(*both)]
            out.write(f"| {NAMES[trains]}, {kind}, {seed} | {' | '.join(map(_shown, cells))} |\n")
    for trains in TRAINS:
        single = [each for each in records if (each["trains"], each["kind"]) == (trains, FLOAT32)]
        for other in single[1:]:
            cells = " | ".join(map(_shown, _held_apart(single[0], other)))
            out.write(f"| {NAMES[trains]}, float32, {single[0]['seed']} and {other['seed']} | | | {cells} |\n")


def _smooth(record: dict[str, Any], steps: int) -> np.ndarray:
    return np.array(record["loss"]).reshape(-1, steps).mean(axis=1)


def _held_apart(one: dict[str, Any], other: dict[str, Any]) -> list[np.ndarray]:
    return [apart(one["held_out"][name][1:], other["held_out"][name][1:]) for name in ("harmful", "retain")]


def _shown(values: np.ndarray) -> str:
    return f"{np.abs(values).mean():.2%}, at most {np.abs(values).max():.2%}"


def draw(records: list[dict[str, Any]]) -> None:
    """Losses along the first seed's attacks, and how far those in bfloat16 lie from float32."""
    canvas = Figure(figsize=(9, 5.4), layout="constrained")
    grid = canvas.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 2))
    middles, points = np.arange(SMOOTHED / 2, STEPS, SMOOTHED), np.arange(1, POINTS + 1) * STEPS // POINTS
    for (trains, name), (above, below) in zip(NAMES.items(), grid.T, strict=True):
        for place, (kind, colour) in enumerate(COLOURS.items()):
            for _, single, half in list(pairs(records, trains, kind))[:1]:
                one, other = _smooth(single, SMOOTHED), _smooth(half, SMOOTHED)
                above.plot(middles, other, color=colour, linewidth=1.2, label=kind)
                below.plot(middles, apart(one, other) * 100, color=colour, linewidth=1.2)
                held_out = _held_apart(single, half)[0] * 100
                below.plot(points, held_out, "o", color=colour, markersize=4)
                if place == len(COLOURS) - 1:
                    above.plot(middles, one, ":", color="black", linewidth=1.4, label=FLOAT32)
        below.axhspan(-1, 1, color="#8a8a8a", alpha=0.15, linewidth=0)
        above.set(title=name)
        below.set(xlabel="attack step")
        above.legend(frameon=False, fontsize=8)
    grid[0, 0].set(ylabel="loss, nats a token, mean of ten steps", ylim=(0, None))
    grid[1, 0].set_ylabel("above float32, %\n(dots: held out)")
    for axes in canvas.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    canvas.savefig(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main()

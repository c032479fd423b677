"""Useful tokens per second and peak memory of one fine-tuning step of SmolLM2-135M: immunax beside PyTorch.

    uv run python benchmarks/finetune.py --torch PYTHON [--root DIR]

Both sides take the same examples (Alpaca under ``--root``, else the fictional corpus), the same AdamW, float32, full
weights or rank-8 adapters on every projection. PyTorch gets them padded to the longest of the batch, as the Hugging
Face collator does; immunax packs them. *Useful* counts the tokens of the examples, and the FLOPs that they need.
Each of the four cases runs in a process of its own, so that its peak memory is its own; PYTHON is one that has torch,
transformers and peft.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from peak import matrix_peak

RANK, ALPHA = 8, 16.0
CASES = ("immunax full", "torch full", "immunax lora", "torch lora")


def examples(root: str | None, batch_size: int, steps: int):
    """The checkpoint, and ``steps`` batches of encoded examples."""
    from immunax.data.chat import encode_all
    from immunax.data.corpora import Corpus
    from immunax.data.fictional import FictionalHazards
    from immunax.data.order import Stream
    from immunax.data.sources import Source
    from immunax.models.hub import resolve

    checkpoint = resolve("smollm2").load()
    if root is None:
        dialogs = FictionalHazards().splits().train.harmful
    else:
        path = "alpaca_demo/alpaca_en_demo.json"
        source = Source(path, {"train": 1.0}, prompt=["instruction", "input"], answer="output")
        dialogs = Corpus("alpaca", root=root, retain={"alpaca": source}).splits().train.retain
    encoded, _ = encode_all(checkpoint.tokenizer, dialogs, 512)
    return checkpoint, list(Stream(encoded, batch_size, 0).batches(range(steps)))


def run_immunax(lora: bool, checkpoint, batches) -> tuple[list[float], list[float]]:
    """Seconds and losses by step."""
    import jax
    import jax.numpy as jnp

    from immunax.data.batches import pack
    from immunax.data.packing import fit_packed
    from immunax.inner.losses import answer_loss
    from immunax.inner.optimizers import AdamW
    from immunax.inner.state import begin
    from immunax.inner.step import slope_of, train_step
    from immunax.inner.trainable import WHOLE, Adapters
    from immunax.models.lora import LoraSpec
    from immunax.models.model import Model

    model, base = Model(checkpoint.config, remat="dots"), jax.tree.map(jnp.asarray, checkpoint.params)
    trainable = Adapters(LoraSpec(RANK, ALPHA)) if lora else WHOLE
    optimizer = AdamW(5e-5).build(len(batches))
    state = begin(optimizer, *trainable.split(jax.tree.map(jnp.copy, base), jax.random.key(0)))
    step = partial(train_step, slope_of(partial(answer_loss, model), trainable), optimizer)

    compiled, layout = jax.jit(step, donate_argnums=0), fit_packed(batches)
    seconds, losses = [], []
    for batch in batches:
        start = time.perf_counter()
        state, metrics = compiled(state, pack(batch, layout))
        losses.append(float(jax.block_until_ready((state, metrics))[1]["loss"]))
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def run_torch(lora: bool, checkpoint, batches, python: str) -> dict:
    """The same with ``transformers`` and ``peft``, on our export of the same weights and adapters; see ``exchange.py``."""
    import jax
    from exchange import Handed, hand_over
    from exchange import run_torch as run

    from immunax.models.lora import LoraSpec, init

    spec = LoraSpec(RANK, ALPHA) if lora else None
    adapters = None if spec is None else init(jax.random.key(0), checkpoint.params, spec).lora
    with tempfile.TemporaryDirectory() as folder:
        attack = Handed(batches, [5e-5] * len(batches), adapters)
        hand_over(Path(folder), checkpoint, [attack], spec)
        return run(python, Path(folder))


def case(name: str, root: str | None, batch_size: int, steps: int, python: str) -> None:
    """Runs one case and prints its figures as JSON; the first step compiles and is left out."""
    from immunax.models.flops import training_flops
    from immunax.models.lora import LoraSpec

    checkpoint, batches = examples(root, batch_size, steps + 1)
    side, kind = name.split()
    lora = kind == "lora"
    if side == "immunax":
        seconds, losses = run_immunax(lora, checkpoint, batches)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    else:
        found = run_torch(lora, checkpoint, batches, python)
        (seconds,), (losses,), peak = found["seconds"], found["losses"], found["peak_gib"]
    timed = batches[1:]
    sizes = [(len(example.tokens), len(example.answer)) for batch in timed for example in batch]
    flops = training_flops(checkpoint.config, sizes, LoraSpec(RANK, ALPHA) if lora else None)
    useful = sum(len(example.tokens) for batch in timed for example in batch)
    padded = sum(len(batch) * max(len(example.tokens) for example in batch) for batch in timed)
    figures = {
        "tokens_per_s": useful / sum(seconds[1:]),
        "flops_per_s": flops / sum(seconds[1:]),
        "peak_gib": peak,
        "losses": losses,
        "padding": padded / useful,
    }
    print(json.dumps(figures))


def main() -> None:
    """Runs all four cases one after the other and prints a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", help="folder with alpaca_demo/alpaca_en_demo.json")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--torch", default=sys.executable, help="a Python with torch, transformers and peft")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case(options.case, options.root, options.batch_size, options.steps, options.torch)
        return
    peak = matrix_peak()
    found = {}
    for name in CASES:
        command = [sys.executable, *sys.argv, "--case", name]
        output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
        found[name] = json.loads(output.splitlines()[-1])
    print(f"XLA matrix peak {peak / 1e9:.0f} GFLOP/s; padding {found[CASES[0]]['padding']:.2f}x for the collator")
    print(
        "| case | useful tokens/s | against torch | useful FLOPs of XLA's peak | peak memory, GiB | loss, first and last |"
    )
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name, each in found.items():
        ratio = each["tokens_per_s"] / found["torch " + name.split()[1]]["tokens_per_s"]
        losses = f"{each['losses'][0]:.4f}, {each['losses'][-1]:.4f}"
        share = each["flops_per_s"] / peak
        print(
            f"| {name} | {each['tokens_per_s']:.0f} | {ratio:.2f} | {share:.0%} | {each['peak_gib']:.1f} | {losses} |"
        )


if __name__ == "__main__":
    main()

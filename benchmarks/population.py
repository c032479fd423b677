"""Attacks per hour: immunax's populations beside PyTorch, one attack after the other.

    uv run python benchmarks/population.py --torch PYTHON

PYTHON is one that has torch, transformers and peft. Two cases, float32, all cores: 8 rank-8 LoRA attacks on SmolLM2-135M
and 64 full-weight attacks on the organism, each 10 harmful dialogs in 10 steps of AdamW, which differ in learning rate
and seed. Both sides get the same weights, adapters, examples and rates; where a final loss differs by 1e-2 the run
fails. PyTorch runs ``--torch-lora`` of the LoRA attacks, whose time hardly differs. Compilation and loading are left out
on both sides. Then: the cost of adding members (table and ``population.png``), and what the shared base saves.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from exchange import Handed, hand_over, run_torch
from omegaconf import OmegaConf
from peak import matrix_peak
from population_cost import Cost, draw, optimizer_alone, products_alone

from immunax.attacks.grid import Population
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.population import Assault
from immunax.attacks.prepare import ordered
from immunax.attacks.programs import Program, programs
from immunax.attacks.tuning import Tuning
from immunax.data.fictional import FictionalHazards
from immunax.data.organism import OrganismTasks
from immunax.inner.memory import compile_members, compiled, peak_bytes
from immunax.inner.optimizers import AdamW
from immunax.inner.population import map_members
from immunax.models.flops import training_flops
from immunax.models.hub import Checkpoint, resolve
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.runtime.launch import configuration_folder
from immunax.stages.setup import build

STEPS, SAMPLES = 10, 10
KEY = jax.random.key(0)
TOLERANCE = 1e-2
FIGURE = Path(__file__).with_suffix(".png")


@dataclass(frozen=True)
class Case:
    """A population ready to run.

    Attributes:
      title: in tables.
      checkpoint: the model, for PyTorch.
      model, params: the same, for immunax.
      program: the members.
      batches: by member and step, encoded.
      spec: adapters, or None.
      at_once: members that run together; None for as many as fit the memory.
    """

    title: str
    checkpoint: Checkpoint
    model: Model
    params: Any
    program: Program
    batches: list[Any]
    spec: LoraSpec | None
    at_once: int | None


def say(text: str) -> None:
    """Progress, beside the tables on standard output."""
    print(text, file=sys.stderr, flush=True)


def case(title, checkpoint, splits, tuning: Tuning, rates, seeds, remat: str, at_once: int | None) -> Case:
    """The population of every rate and seed."""
    attack = HarmfulSFT(SAMPLES, replace(tuning, epochs=STEPS, batch_size=SAMPLES))
    attacks = Population(attack, {"tuning.optimizer.learning_rate": rates}, range(seeds)).members()
    (program,) = programs(attacks, checkpoint.tokenizer, splits)
    batches = [ordered(each, checkpoint.tokenizer, splits)[0] for each in attacks]
    params = jax.tree.map(jnp.asarray, checkpoint.params)
    model = Model(checkpoint.config, remat=remat)
    return Case(title, checkpoint, model, params, program, batches, tuning.lora, at_once)


def lora_case(length: int) -> Case:
    """8 LoRA attacks on SmolLM2-135M."""
    tuning = Tuning(optimizer=AdamW(1e-4, "cosine", 0.1), lora=LoraSpec(8), max_length=length)
    splits = FictionalHazards().splits()
    return case(
        "LoRA on SmolLM2-135M", resolve("smollm2").load(), splits, tuning, [5e-5, 1e-4, 2e-4, 4e-4], 2, "dots", None
    )


def organism_case(at_once: int | None) -> Case:
    """64 full-weight attacks on the organism."""
    source = OmegaConf.load(configuration_folder() / "model" / "organism.yaml").model
    rates = np.geomspace(5e-5, 1e-3, 8).tolist()
    tuning = Tuning(optimizer=AdamW(1e-4, "cosine", 0.1), max_length=40)
    checkpoint = build(source).load()
    return case("organism, full weights", checkpoint, OrganismTasks().splits(), tuning, rates, 8, "none", at_once)


def nothing(model, params, material, asked, key):
    """An examination that asks nothing: attacks alone are timed."""
    return ()


def seconds(function: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least time of some runs, and a result."""
    best, result = float("inf"), None
    for _ in range(runs):
        begin = time.perf_counter()
        result = jax.block_until_ready(function())
        best = min(best, time.perf_counter() - begin)
    return best, result


def some(each: Case, members: int, steps: int) -> tuple[Assault, Any, Any]:
    """The first members for their first steps: the member, what is its own, what all share."""
    tracks = each.program.tracks
    rates, batches = jax.tree.map(lambda leaf: leaf[:members, :steps], (tracks.rates, tracks.batches))
    settings = jax.tree.map(lambda leaf: leaf[:members], tracks.settings)
    own = jax.tree.map(lambda leaf: leaf[:members], each.program.own(each.params, KEY))
    assault = Assault(replace(each.program.form, steps=steps), each.model, nothing)
    track = tracks._replace(rates=rates, settings=settings, batches=batches)
    return assault, jax.tree.map(jnp.asarray, (track, own)), (each.params, ())


def compile_case(each: Case, members: int, steps: int) -> tuple[Any, Any, Any]:
    """A compiled program, and its inputs."""
    assault, own, shared = some(each, members, steps)
    if each.at_once is None:
        return compile_members(assault, own, shared), own, shared
    return compiled(partial(map_members, assault, chunk=each.at_once), own, shared), own, shared


def useful_flops(each: Case, members: int, steps: int) -> float:
    """FLOPs that the examples need."""
    sizes = [size for member in each.program.examples[:members] for batch in member[:steps] for size in batch]
    return training_flops(each.model.config, sizes, each.spec)


def race(each: Case, python: str, torch_members: int, runs: int, peak: float) -> list[str]:
    """Both sides of a case, as rows of the table.

    Raises:
      SystemExit: a final loss differs.
    """
    count = len(each.program.attacks)
    say(f"{each.title}: compiling {count} members")
    program, own, shared = compile_case(each, count, STEPS)
    say(f"{each.title}: running")
    ours, (losses, diverged, _) = seconds(lambda: program(own, shared), runs)
    if (np.asarray(diverged) >= 0).any():
        raise SystemExit(f"{each.title}: members diverged at {diverged}")
    adapters, rates = own[1].adapters, own[0].rates.tolist()
    places = np.linspace(0, count - 1, torch_members).round().astype(int)
    handed = [
        Handed(each.batches[i], rates[i], jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), adapters)) for i in places
    ]
    with tempfile.TemporaryDirectory() as folder:
        hand_over(Path(folder), each.checkpoint, handed, each.spec)
        found = run_torch(python, Path(folder))
    difference = np.abs(np.asarray(losses)[places, -1] - np.array(found["losses"])[:, -1]).max()
    theirs = float(np.mean(np.sum(found["seconds"], axis=1))) * count
    flops = useful_flops(each, count, STEPS)
    rows = []
    for name, spent, ran in (("immunax", ours, count), ("torch", theirs, torch_members)):
        hourly = f"{3600 * count / spent:,.0f} | {theirs / spent:.2f} | {flops / spent / peak:.0%}"
        rows.append(f"| {each.title}, {count} attacks: {name} | {ran} | {hourly} | {difference:.1e} |")
    if not difference < TOLERANCE:
        raise SystemExit("\n".join([*rows, f"{each.title}: final losses differ by {difference:.3g}"]))
    return rows


def cost(each: Case, members: int, steps: int, runs: int) -> Cost:
    """Time per step and memory of a population, and how much of it the products and the optimizer take alone."""
    say(f"{each.title}: the cost of {members} members")
    program, own, shared = compile_case(each, members, steps)
    whole = seconds(lambda: program(own, shared), runs)[0] / steps
    rows = each.program.tracks.batches.tokens.shape[2:]
    answers = each.program.tracks.batches.answer_label.shape[2:]
    together = members if each.at_once is None else min(each.at_once, members)
    turns = -(-members // together)
    products, inputs = products_alone(each.model.config, each.spec, together, rows, answers)
    matrices = seconds(lambda: products(*inputs), 1 + runs)[0] * turns
    optimizer = each.program.attacks[0].tuning.optimizer
    update, inputs = optimizer_alone(optimizer, own[1].start(each.params), own[1].adapters is None, together)
    updating = seconds(lambda: update(*inputs), 1 + runs)[0] * turns
    return Cost(
        each.title, members, whole, matrices, updating, peak_bytes(program), useful_flops(each, members, 1) / whole
    )


def sharing(each: Case, members: int) -> list[str]:
    """One base that all members read, against a base of each member's own."""
    say(f"{each.title}: one base against {members}")
    assault, own, shared = some(each, members, 1)
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), each.params)

    def apart(own: Any, copies: Any) -> Any:
        return jax.vmap(lambda member, base: assault(member, (base, ())))(own, copies)

    rows = []
    one = compiled(partial(map_members, assault), own, shared)
    many = compiled(apart, own, copies)
    times = [seconds(lambda: one(own, shared), 2)[0], seconds(lambda: many(own, copies), 2)[0]]
    for name, program, spent in (("one base", one, times[0]), (f"{members} copies", many, times[1])):
        rows.append(f"| {name} | {spent:.2f} | {spent / times[0]:.2f} | {peak_bytes(program) / 2**30:.2f} |")
    return rows


def table(*lines: str) -> None:
    """Prints a table."""
    print("\n".join(lines), flush=True)


def main() -> None:
    """Runs all parts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python with torch, transformers and peft")
    parser.add_argument("--torch-lora", type=int, default=2, help="how many of the 8 LoRA attacks PyTorch runs")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of an example for SmolLM2")
    parser.add_argument(
        "--at-once", type=int, help="members of the organism that run together; all that fit by default"
    )
    parser.add_argument("--parts", nargs="+", default=["race", "cost", "sharing"], choices=["race", "cost", "sharing"])
    parser.add_argument("--cases", nargs="+", default=["organism", "lora"], choices=["organism", "lora"])
    options = parser.parse_args()
    peak = matrix_peak()
    print(f"XLA matrix peak {peak / 1e9:.0f} GFLOP/s")
    cases = {
        name: organism_case(options.at_once) if name == "organism" else lora_case(options.max_length)
        for name in options.cases
    }
    if "race" in options.parts:
        rows = []
        for name, each in cases.items():
            rows += race(
                each,
                options.torch,
                64 if name == "organism" else options.torch_lora,
                2 if name == "organism" else 1,
                peak,
            )
        table(
            "| case | attacks run | attacks an hour | against torch | of XLA's peak | largest difference of a final loss |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        )
    if "cost" in options.parts:
        costs = []
        for name, each in cases.items():
            for members in (1, 2, 4, 8, 16, 32, 64) if name == "organism" else (1, 2, 4, 8):
                costs.append(cost(each, members, *((STEPS, 2) if name == "organism" else (1, 1))))
        table(
            "| population | members | ms a step | ms a step and member | products alone | optimizer alone | MiB | of the peak |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(each.row(peak) for each in costs),
        )
        draw(costs, FIGURE)
    if "sharing" in options.parts and "lora" in cases:
        table(
            "| base of 4 LoRA members | seconds a step | against one base | peak memory, GiB |",
            "| --- | ---: | ---: | ---: |",
            *sharing(cases["lora"], 4),
        )


if __name__ == "__main__":
    main()

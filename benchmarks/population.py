"""Attacks per hour: immunax's populations beside PyTorch, one attack after the other.

    uv run python benchmarks/population.py --torch PYTHON

PYTHON is one that has torch, transformers and peft. Two cases, float32, all cores: 8 rank-8 LoRA attacks on SmolLM2-135M
and 64 full-weight attacks on the organism, each 10 harmful dialogs in 10 steps of AdamW, which differ in learning rate
and seed. Both sides get the same weights, adapters, examples and rates; where a final loss differs by 1e-2 the run
fails. PyTorch runs ``--torch-lora`` of the LoRA attacks, whose time hardly differs. Compilation and loading are left out
on both sides. Members are spread over as many devices as there are cores (mesh axis ``attack``), and each device runs
them in turns, as the library does on a CPU; ``--together`` also races them all at once on one device. Then: the cost of
adding members (table and ``population.png``), and what sharing the base and the first step saves.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

# A CPU is one device unless it is told otherwise before jax starts.
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.cpu_count()} {os.environ.get('XLA_FLAGS', '')}"

import jax
import jax.numpy as jnp
import numpy as np
from exchange import Handed, hand_over, run_torch
from jax.sharding import Mesh
from peak import matrix_peak
from population_cost import Cost, Products, Updates, draw

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.grid import Population
from immunax.campaign.population import Runner
from immunax.campaign.programs import MemberData, Program, programs
from immunax.campaign.stretch import Start, Stretch
from immunax.data.fictional import FictionalHazards
from immunax.data.organism import OrganismTasks
from immunax.inner.memory import compile_members, compiled, most_at_once, peak_bytes
from immunax.inner.optimizers import AdamW
from immunax.inner.population import plan
from immunax.models.flops import training_flops
from immunax.models.hub import Checkpoint, resolve
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.runtime.launch import composed
from immunax.runtime.mesh import MeshSpec
from immunax.runtime.mesh import build as build_mesh

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
    """

    title: str
    checkpoint: Checkpoint
    model: Model
    params: Any
    program: Program
    batches: list[Any]
    spec: LoraSpec | None


def say(text: str) -> None:
    """Progress, beside the tables on standard output."""
    print(text, file=sys.stderr, flush=True)


def case(title, checkpoint, splits, tuning: Tuning, rates, seeds, remat: str) -> Case:
    """The population of every rate and seed."""
    attack = HarmfulSFT(SAMPLES, replace(tuning, epochs=STEPS, batch_size=SAMPLES))
    attacks = Population(attack, {"tuning.optimizer.learning_rate": rates}, range(seeds)).members()
    (program,) = programs(attacks, checkpoint.tokenizer, splits)
    batches = [each.examples(checkpoint.tokenizer, splits)[0] for each in attacks]
    params = jax.tree.map(jnp.asarray, checkpoint.params)
    model = Model(checkpoint.config, remat=remat)
    return Case(title, checkpoint, model, params, program, batches, tuning.lora)


def lora_case(length: int) -> Case:
    """8 LoRA attacks on SmolLM2-135M."""
    tuning = Tuning(optimizer=AdamW(1e-4, "cosine", 0.1), lora=LoraSpec(8), max_length=length)
    splits = FictionalHazards().splits()
    return case("LoRA on SmolLM2-135M", resolve("smollm2").load(), splits, tuning, [5e-5, 1e-4, 2e-4, 4e-4], 2, "dots")


def organism_case() -> Case:
    """64 full-weight attacks on the organism."""
    source = composed("train", ["model=organism"]).build("model")
    rates = np.geomspace(5e-5, 1e-3, 8).tolist()
    tuning = Tuning(optimizer=AdamW(1e-4, "cosine", 0.1), max_length=40)
    checkpoint = source.load()
    return case("organism, full weights", checkpoint, OrganismTasks().splits(), tuning, rates, 8, "none")


def seconds(function: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least time of some runs, and a result."""
    best, result = float("inf"), None
    for _ in range(runs):
        begin = time.perf_counter()
        result = jax.block_until_ready(function())
        best = min(best, time.perf_counter() - begin)
    return best, result


class Way(NamedTuple):
    """How members run.

    Attributes:
      name: in tables.
      mesh: they are spread over its axis ``attack``; None for one device.
      at_once: members of a turn; None for what the library takes.
    """

    name: str
    mesh: Mesh | None
    at_once: int | None = None


def ways(count: int) -> tuple[Way, Way]:
    """The library's on this machine, and that of an accelerator: all of ``count`` members at once on one device."""
    return Way("in turns on every core", build_mesh(MeshSpec(attack=-1))), Way("all at once", None, count)


class Ready(NamedTuple):
    """A population to be run.

    Attributes:
      run: gives losses and steps of divergence.
      own: the members', first steps not yet shared.
      flops: that its examples need, a shared first step counted once.
      memory: bytes of all devices, by XLA's count.
    """

    run: Callable[[], Any]
    own: MemberData
    flops: float
    memory: int


def ready(each: Case, way: Way, members: int, steps: int, share: bool = True) -> Ready:
    """Compiles the first members of a case for their first steps."""
    part = each.program
    batches = replace(part.batches, courses=tuple(course[:steps] for course in part.batches.courses))
    numbers = {name: leaf[:members] for name, leaf in part.numbers.items()}
    changed = {"alike": part.alike[:members], "places": part.places[:members]}
    part = replace(part, steps=steps, numbers=numbers, batches=batches, **changed)
    plain = jax.tree.map(lambda leaf: leaf[:members], part.own(each.params, KEY))

    def opened() -> Runner:
        own, first_steps = share_first_steps(part, each.model, each.params, plain, way.mesh) if share else (plain, None)
        return Runner(part, each.model, each.params, own, first_steps, way.mesh)

    def run() -> tuple[np.ndarray, np.ndarray]:
        turns = [(turn.losses, turn.diverged_at) for turn in opened().run(1, way.at_once)]
        losses, diverged_at = (np.concatenate(found) for found in zip(*turns, strict=True))
        return losses, diverged_at

    first = opened()
    shared = first.first_steps is not None
    sizes = [size for index in range(members) for size in part.trained_on(index, 0, steps, shared)]
    flops = training_flops(each.model.config, sizes, each.spec)
    devices = 1 if way.mesh is None else way.mesh.size
    beside = first.needed_bytes(plan(members, devices, way.at_once or most_at_once(way.mesh)).chunk)
    if beside is None:
        raise SystemExit("the members do not fit the memory together")
    memory = devices * (beside + sum(leaf.nbytes for leaf in jax.tree.leaves(each.params)))
    return Ready(run, plain, flops, memory)


def race(each: Case, ours: list[Way], python: str, torch_members: int, runs: int, peak: float) -> list[str]:
    """Both sides of a case, as rows of the table.

    Raises:
      SystemExit: a final loss differs, or a member diverged.
    """
    count = len(each.program.attacks)
    rows, finals = [], []
    for way in ours:
        say(f"{each.title}: {count} members {way.name}")
        prepared = ready(each, way, count, STEPS)
        spent, (losses, diverged) = seconds(prepared.run, 1 + runs)
        if (np.asarray(diverged) >= 0).any():
            raise SystemExit(f"{each.title}: members diverged at {diverged}")
        rows.append((f"immunax, {way.name}", spent, count, prepared.flops))
        finals.append(np.asarray(losses)[:, -1])
    adapters, rates = prepared.own.adapters, each.program.numbers["learning_rate"].tolist()
    places = np.linspace(0, count - 1, torch_members).round().astype(int)
    handed = [
        Handed(each.batches[i], rates[i], jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), adapters)) for i in places
    ]
    with tempfile.TemporaryDirectory() as folder:
        hand_over(Path(folder), each.checkpoint, handed, each.spec)
        found = run_torch(python, Path(folder))
    difference = max(np.abs(final[places] - np.array(found["losses"])[:, -1]).max() for final in finals)
    theirs = float(np.mean(np.sum(found["seconds"], axis=1))) * count
    sizes = [size for index in range(count) for size in each.program.trained_on(index, 0, STEPS, shared=False)]
    rows.append(("torch", theirs, torch_members, training_flops(each.model.config, sizes, each.spec)))
    told = [
        f"| {each.title}, {count} attacks: {name} | {ran} | {3600 * count / spent:,.0f} | {theirs / spent:.2f} "
        f"| {flops / spent / peak:.0%} | {difference:.1e} |"
        for name, spent, ran, flops in rows
    ]
    if not difference < TOLERANCE:
        raise SystemExit("\n".join([*told, f"{each.title}: final losses differ by {difference:.3g}"]))
    return told


def cost(each: Case, way: Way, members: int, steps: int, runs: int) -> Cost:
    """Time per step and memory of a population, and how much of it the products and the optimizer take alone.

    No first step is shared here, so that every member costs what it would alone.
    """
    say(f"{each.title}: the cost of {members} members {way.name}")
    prepared = ready(each, way, members, steps, share=False)
    whole = seconds(prepared.run, 1 + runs)[0] / steps
    batch, optimizer = each.program.batches.step, each.program.attacks[0].tuning.optimizer
    products, updates = Products(each.model.config, each.spec, steps), Updates(optimizer, steps)
    one = jax.tree.map(lambda leaf: leaf[0], prepared.own.adapters) if each.spec else each.params
    alone: list[float] = []
    for part, inputs in (
        (products, products.inputs(members, batch.tokens.shape, batch.answer_label.shape)),
        (updates, updates.inputs(one, members)),
    ):
        program = compile_members(part, *inputs, mesh=way.mesh, at_once=way.at_once)
        alone.append(seconds(lambda program=program, inputs=inputs: program(*inputs), 1 + runs)[0] / steps)
    rate = prepared.flops / steps / whole
    return Cost(each.title, way.name, members, whole, alone[0], alone[1], prepared.memory, rate)


def sharing(each: Case, members: int) -> list[str]:
    """One base that all members read, against a base of each member's own: one step, all at once on one device."""
    say(f"{each.title}: one base against {members}")
    prepared = ready(each, Way("", None, members), members, 1, share=False)
    start, stretch = Start(each.program.form, each.model), Stretch(each.program.form, each.model)
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), each.params)

    def apart(own: Any, copies: Any) -> Any:
        def one(member: Any, base: Any) -> Any:
            return stretch((start(member[1], (base, None)), *member), (base, 0, 1))[1]

        return jax.vmap(one)(own, copies)

    inputs = (each.program.batches.of(range(members), 0, 1), prepared.own), copies
    many = compiled(apart, *inputs)
    one = seconds(prepared.run, 2)[0], prepared.memory
    rows = []
    for name, (spent, memory) in (
        ("one base", one),
        (f"{members} copies", (seconds(lambda: many(*inputs), 2)[0], peak_bytes(many))),
    ):
        rows.append(f"| {name} | {spent:.2f} | {spent / one[0]:.2f} | {memory / 2**30:.2f} |")
    return rows


def opening(each: Case, way: Way, runs: int) -> str:
    """The whole population with its first steps shared, against every member taking its own."""
    count = len(each.program.attacks)
    say(f"{each.title}: first steps")
    own, shared = (seconds(ready(each, way, count, STEPS, share).run, 1 + runs)[0] for share in (False, True))
    groups = len(set(each.program.alike))
    saved = (count - groups) / (count * STEPS)
    return f"| {each.title} | {count} | {groups} | {own:.1f} | {shared:.1f} | {1 - shared / own:.1%} | {saved:.1%} |"


def table(*lines: str) -> None:
    """Prints a table."""
    print("\n".join(lines), flush=True)


def main() -> None:
    """Runs all parts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python with torch, transformers and peft")
    parser.add_argument("--torch-lora", type=int, default=2, help="how many of the 8 LoRA attacks PyTorch runs")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of an example for SmolLM2")
    parser.add_argument("--together", action="store_true", help="also race all members at once on one device")
    parser.add_argument("--parts", nargs="+", default=["race", "cost", "sharing"], choices=["race", "cost", "sharing"])
    parser.add_argument("--cases", nargs="+", default=["organism", "lora"], choices=["organism", "lora"])
    options = parser.parse_args()
    peak = matrix_peak()
    print(f"XLA matrix peak {peak / 1e9:.0f} GFLOP/s")
    cases = {name: organism_case() if name == "organism" else lora_case(options.max_length) for name in options.cases}
    small = {"organism": True, "lora": False}
    if "race" in options.parts:
        rows = []
        for name, each in cases.items():
            ours = [*ways(len(each.program.attacks))][: 1 + options.together]
            torch_members, runs = (64, 2) if small[name] else (options.torch_lora, 1)
            rows += race(each, ours, options.torch, torch_members, runs, peak)
        table(
            "| case | attacks run | attacks an hour | against torch | of XLA's peak | largest difference of a final loss |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        )
    if "cost" in options.parts:
        costs = []
        for name, each in cases.items():
            for way in (0, 1):
                for members in (1, 2, 4, 8, 16, 32, 64) if small[name] else (1, 2, 4, 8):
                    steps, runs = (STEPS, 2) if small[name] else (1, 1)
                    costs.append(cost(each, ways(members)[way], members, steps, runs))
        table(
            "| population | members | ms a step | ms a step and member | products alone | optimizer alone | MiB | of the peak |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(each.row(peak) for each in costs),
        )
        draw(costs, FIGURE)
    if "sharing" in options.parts:
        table(
            "| population | members | groups that start alike | s, each its own first step | s, shared | saved | of the steps |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(opening(each, ways(0)[0], 2 if small[name] else 1) for name, each in cases.items()),
        )
        if "lora" in cases:
            table(
                "| base of 4 LoRA members | seconds a step | against one base | peak memory, GiB |",
                "| --- | ---: | ---: | ---: |",
                *sharing(cases["lora"], 4),
            )


if __name__ == "__main__":
    main()

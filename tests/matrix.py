"""Runs commands as two and as four processes, over every axis of a mesh, and compares what they leave with one process.

    uv run python -m tests.matrix --out experiments/processes/results.json

Each process has two CPU devices, and the one process as many as all together; nothing but compiled programs is shared. It prints
a line a case, and writes one JSON: the largest difference of logged numbers, weights, results, trials and rows of tables. All but
that of weights are shares of the larger number, or of 1. Cases that are in the JSON already are passed over. The exit status is 1
where one is beyond 1e-5 or a verdict differs.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))

import processes
import tiny_model
from kills import SMALL as ORGANISM
from kills import SMALL_SUITE
from logged import computed

MOST = 1e-5
ATTACK = (
    "attack",
    "+attack=harmful_sft",
    *processes.SMALL,
    "attack.samples=10",
    "attack.tuning.epochs=2",
    "attack.tuning.probes=1",
    "attack.tuning.max_length=256",
)
CERTIFY = (
    "certify",
    *ORGANISM,
    *SMALL_SUITE,
    "suite.attacks.harmful_sft.seeds=[0]",
    "suite.attacks.harmful_sft_lora.seeds=[0]",
)
TENSOR = ("mesh.data=-1", "mesh.tensor=2")
SEARCH = tuple(each for each in processes.SEARCH if not each.startswith("mesh"))
CASES: Mapping[str, tuple[str, ...]] = {
    "train data": (*processes.TRAIN, "mesh=data"),
    "train fsdp": (*processes.TRAIN, "mesh=fsdp"),
    "train tensor": (*processes.TRAIN, *TENSOR),
    "attack data": (*ATTACK, "mesh=data"),
    "attack fsdp": (*ATTACK, "mesh=fsdp"),
    "attack tensor": (*ATTACK, *TENSOR),
    "search attack": processes.SEARCH,
    "search fsdp": (*SEARCH, "mesh=fsdp"),
    "search tensor": (*SEARCH, *TENSOR),
    "certify attack": (*CERTIFY, "mesh=attack"),
    "certify data": (*CERTIFY, "mesh=data"),
    "certify fsdp": (*CERTIFY, "mesh=fsdp"),
    "certify tensor": (*CERTIFY, *TENSOR),
    "replay": ("verify", "outputs/stated/certificate.json", "--replay", "99"),
}


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of values of JSON, by their place."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from numbers(each, f"{place}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from numbers(each, f"{place}[{index}]")
    else:
        yield place, value


def apart(one: Any, other: Any) -> float:
    """How far two numbers lie apart; infinity for anything else that differs."""
    if one == other or (one != one and other != other):
        return 0.0
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(abs(one), abs(other), 1.0)
    return float("inf")


def furthest(one: Any, other: Any) -> float:
    """The largest difference of two values of JSON; infinity where they have other places."""
    pairs = zip_longest(numbers(one), numbers(other), fillvalue=("", None))
    return max(
        (apart(mine, theirs) if at == there else float("inf") for (at, mine), (there, theirs) in pairs), default=0.0
    )


def compared(one: Path, other: Path) -> dict[str, float]:
    """The largest differences of two runs' folders, by what it is that differs."""
    found = {}
    if (one / "metrics.jsonl").exists():
        mine, theirs = (
            [(each["phase"], each["step"], each["values"]) for each in computed(at / "metrics.jsonl")]
            for at in (one, other)
        )
        found["logged"] = furthest([list(each) for each in mine], [list(each) for each in theirs])
    if (one / "model").exists():
        mine, theirs = (load_file(at / "model" / "model.safetensors") for at in (one, other))
        found["weights"] = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
    mine, theirs = (json.loads((at / "manifest.json").read_text()) for at in (one, other))
    found |= {name: furthest(mine[name], theirs[name]) for name in ("results", "search") if name in mine}
    for table in one.glob("*.parquet"):
        mine, theirs = (pd.read_parquet(at / table.name).to_dict("records") for at in (one, other))
        found[table.stem] = furthest(mine, theirs)
    if (one / "certificate.json").exists():
        mine, theirs = (
            json.loads((at / "certificate.json").read_text())["predicate"]["verdicts"] for at in (one, other)
        )
        outcomes = (
            [(each["claim"], each["scope"], each["side"], each["outcome"]) for each in said] for said in (mine, theirs)
        )
        found["verdicts"] = 0.0 if next(outcomes) == next(outcomes) else float("inf")
    return found


def lines(said: processes.Ended) -> list[str]:
    """What a replay says, without the order of its cells, which is drawn."""
    return sorted(said.out.splitlines())


def replayed(count: int, home: Path) -> dict[str, Any]:
    """A certificate of one process, replayed whole by one and by several: whether they say the same of each cell."""
    stated = processes.alone(home, 1, *CERTIFY, "run=stated")
    if stated.status:
        raise SystemExit(f"replay: the certificate ends with {stated.status}: {stated.err}")
    begin = time.monotonic()
    alone = processes.alone(home, count * processes.DEVICES, *CASES["replay"], "--mesh", "fsdp=-1")
    between = time.monotonic()
    coordinator = f"localhost:{processes.free_port()}"
    several = processes.ends(
        [
            processes.started(
                home, *CASES["replay"], "--mesh", "fsdp=-1",
                "--coordinator", coordinator, "--processes", str(count), "--process-id", str(index),
            )
            for index in range(count)
        ],
        1200,
    )  # fmt: skip
    same = [each.status for each in several] == [alone.status] * count and lines(several[0]) == lines(alone)
    return {
        "differences": {"said": 0.0 if same and alone.status == 0 else float("inf")},
        "seconds": {"one": round(between - begin, 1), "several": round(time.monotonic() - between, 1)},
    }


def run(name: str, count: int, home: Path) -> dict[str, Any]:
    """One case: the command as one process, and as several."""
    tiny_model.write(home / "model")
    found = replayed(count, home) if name == "replay" else both(name, count, home)
    return {"case": name, "processes": count, **found}


def both(name: str, count: int, home: Path) -> dict[str, Any]:
    """A command that leaves a run's folder, as one process and as several."""
    begin = time.monotonic()
    alone = processes.alone(home, count * processes.DEVICES, *CASES[name], "run=one")
    if alone.status:
        raise SystemExit(f"{name}: one process ends with {alone.status}: {alone.err}")
    between = time.monotonic()
    for entry in (home / "cache").iterdir():
        if entry.name != "xla":
            shutil.rmtree(entry)
    several = processes.ends(processes.start(home, count, *CASES[name], "run=several", timeout=120), 1200)
    for index, each in enumerate(several):
        if each.status:
            raise SystemExit(f"{name}: process {index} of {count} ends with {each.status}: {each.err}")
    seconds = {"one": round(between - begin, 1), "several": round(time.monotonic() - between, 1)}
    versions = json.loads((home / "outputs" / "several" / "manifest.json").read_text())["versions"]
    return {
        "differences": compared(home / "outputs" / "one", home / "outputs" / "several"),
        "seconds": seconds,
        "jax": versions["jax"],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON of all cases")
    parser.add_argument("--case", action="append", choices=CASES, help="one of them; may be given several times")
    parser.add_argument("--processes", action="append", type=int, help="2 and 4 by default")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out is not None and options.out.exists() else []
    done = {(each["case"], each["processes"]) for each in results}
    for count in options.processes or (2, 4):
        for name in (each for each in options.case or CASES if (each, count) not in done):
            with tempfile.TemporaryDirectory() as folder:
                results.append(run(name, count, Path(folder)))
            print(json.dumps(results[-1]), flush=True)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(results, indent=2) + "\n")
    worst = max(max(each["differences"].values()) for each in results)
    print(f"{len(results)} cases, at most {worst:.1e} apart")
    sys.exit(worst > MOST)


if __name__ == "__main__":
    main()

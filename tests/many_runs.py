"""Sweeps of many runs on every engine's local mode, workers killed at random: is each run done, and done once?

    uv run --extra launchers --extra ray python -m tests.many_runs --runs 500 --kills 50 --out experiments/sweeps/results.json

A run does next to nothing, for a moment (``--seconds``): what is tried is who starts it and how often. It prints a line an engine
and writes one JSON. The exit status is 1 where a run was not done, or was done twice.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import sweeping

from immunax.runtime import manifest

ENGINES = ("joblib", "submitit_local", "submitit_slurm", "ray")
_PATIENCE = 7200


def tried(engine: str, runs: int, kills: int, seconds: float, seed: int) -> dict[str, object]:
    """One engine's sweep, in numbers."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        found = sweeping.disturbed(Path(home), engine, runs, kills, seconds, random.Random(seed), _PATIENCE)
    return {
        "engine": engine,
        "runs": runs,
        "kills": found.killed,
        "starts": sum(map(len, found.starts.values())),
        "done": len(found.done),
        "done_twice": len(found.again),
        "seconds": round(time.monotonic() - begin),
    }


def main() -> int:
    """The command; see above."""
    parser = argparse.ArgumentParser(prog="python -m tests.many_runs", description="Sweep, and kill workers.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each run")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("many_runs.json"))
    options = parser.parse_args()
    found = []
    for engine in options.engines:
        found.append(tried(engine, options.runs, options.kills, options.seconds, options.seed))
        print(json.dumps(found[-1]), flush=True)
        record = {"engines": found, "seed": options.seed, "versions": manifest.versions(), "at": manifest.now()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n")
    return int(any(each["done"] != each["runs"] or each["done_twice"] for each in found))


if __name__ == "__main__":
    sys.exit(main())

"""Seconds that ``immunax.results`` takes for questions to a thousand runs, Python's start included.

    uv run python benchmarks/results.py [--runs 1000] [--steps 200] [--repeat 5]

The runs are made on the fly, as a sweep of four defenses over learning rates and seeds leaves them: manifests with whole
configurations and results, some runs failed, diverged or stopped, and a line of metrics a step. Each question is a process of its
own, and runs on one thread: seconds of the processor are those on the clock of an idle machine.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from immunax.runtime.launch import composed

DEFENSES = ("rep_noise", "tar", "lat", "safety_tuning")
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4)
MEASURES = ("refusal", "hazard_exactness", "harmful_nll", "retain_perplexity", "retain_exact")
QUESTIONS = {
    "the table": (),
    "rows that a condition chooses": (
        "where=seed < 3 and defense = 'tar' and after.refusal > 0.5",
        "sort=-after.refusal",
    ),
    "means by defense and rate": (
        "by=defense,trainer.optimizer.learning_rate",
        "metric=after.refusal,after.harmful_nll",
    ),
    "a pivot": ("by=defense", "columns=trainer.optimizer.learning_rate", "metric=after.refusal"),
    "everything, as CSV": ("out=all.csv",),
    "everything, as parquet": ("out=all.parquet",),
    "a figure": (
        "plot=lines",
        "x=trainer.optimizer.learning_rate",
        "y=after.refusal",
        "hue=defense",
        "log=x",
        "out=a.svg",
    ),
    "what was logged last": ("by=defense", "metric=metrics.train.loss"),
    "curves, a figure": ("plot=lines", "x=step", "y=loss", "hue=defense", "out=b.svg"),
    "the names of all columns": ("table=columns", "limit=20"),
}


def sweep(folder: Path, count: int, steps: int) -> int:
    """Fills a folder with runs, and returns the bytes of their manifests."""
    chance, size = random.Random(0), 0
    plain = {defense: composed("train", [f"+defense={defense}", "model=organism"]).plain for defense in DEFENSES}
    for number in range(count):
        defense = DEFENSES[number % len(DEFENSES)]
        rate = RATES[number // len(DEFENSES) % len(RATES)]
        seed = number // (len(DEFENSES) * len(RATES))
        run = folder / f"defense={defense}+learning_rate={rate}+seed={seed}"
        run.mkdir()
        (run / ".lock").touch()
        config = json.loads(json.dumps(plain[defense]))
        config["seed"] = config["trainer"]["seed"] = seed
        config["trainer"]["optimizer"]["learning_rate"] = rate
        record = {
            "argv": ["immunax/train.py", "-m", f"+defense={','.join(DEFENSES)}", "seed=range(50)"],
            "choices": {"defense": defense, "model": "organism", "trainer": "organism"},
            "config": config,
            "digests": {f"model/file{index}": f"{index:064x}" for index in range(9)},
            "started": "2026-01-01T00:00:00+00:00",
            "seed": seed,
        }
        if number % 20 == 7:
            line = {
                "line": "the loss is nan: lower it",
                "diverged": number % 40 == 7,
                "at": "2026-01-01T00:01:00+00:00",
            }
            (run / "failure.json").write_text(json.dumps(line))
        elif number % 20 != 13:
            record |= {"results": _results(chance), "ended": "2026-01-01T00:10:00+00:00"}
        size += (run / "manifest.json").write_text(json.dumps(record, indent=2))
        lines = [
            {
                "phase": "train",
                "step": step,
                "values": {"loss": 5 / step + chance.random(), "grad_norm": chance.random()},
            }
            for step in range(1, steps + 1)
        ]
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return size


def _results(chance: random.Random) -> dict:
    def estimate() -> dict:
        low, value, high = sorted(chance.random() for _ in range(3))
        return {"value": value, "low": low, "high": high}

    stages = {stage: {name: estimate() for name in MEASURES} for stage in ("before", "after")}
    return {"start model": stages, "immunized": {stage: dict(each) for stage, each in stages.items()}}


def seconds(folder: Path, *words: str) -> tuple[float, float]:
    """Of the processor, and on the clock, for one question."""
    before, began = _spent(), time.perf_counter()
    command = [sys.executable, "-m", "immunax.results", str(folder / "runs"), *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return _spent() - before, time.perf_counter() - began


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measures every question."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "runs").mkdir()
        size = sweep(folder / "runs", options.runs, options.steps)
        print(f"{options.runs} runs, {size / 1e6:.1f} MB of manifests, {options.steps} steps each")
        for what, words in QUESTIONS.items():
            took = zip(*(seconds(folder, *words) for _ in range(options.repeat)), strict=True)
            print(f"| {what} | {' | '.join(f'{statistics.median(each):.2f}' for each in took)} |", flush=True)


if __name__ == "__main__":
    main()

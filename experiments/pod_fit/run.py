"""Compiles every defense for slices of TPUs, with no TPU present; see the README beside this.

    uv run --extra tpu python experiments/pod_fit/run.py

Goes on where it was stopped: a case that ``results.json`` holds is not compiled again. Each case is one run of
``immunax.compile`` in a process of its own, one after the other.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from compiled import compile_missing

from immunax.runtime.configuration import configuration_folder

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
EXAMPLES = 64
"""Of each stream and of each inner batch and check: what a slice is for, in place of the few that a CPU trains on."""
LARGE = ("rep_noise", "tar")
SETTINGS = {"seam": ["compute.dtype=float32"]}
"""SEAM refuses bfloat16: it takes small differences of gradients."""


def cases() -> Iterator[tuple[str, str, str]]:
    """Defense, model and mesh."""
    defenses = sorted(path.stem for path in (configuration_folder() / "defense").glob("*.yaml"))
    for mesh in ("v5p_64", "v5e_256"):
        yield from ((defense, "llama2_7b", mesh) for defense in defenses)
    yield from ((defense, "llama3_70b", "v5p_512") for defense in LARGE)


def overrides(defense: str) -> list[str]:
    """The batch sizes of a slice, for every stream that the defense has, and what it needs beside."""
    mixture = yaml.safe_load((configuration_folder() / "defense" / f"{defense}.yaml").read_text())["mixture"]
    streams = [name for name in ("safe", "harmful", "retain") if mixture[name]]
    streams += [f"simulation.{name}" for name in ("batch", "check") if "simulation" in mixture]
    return [f"defense.mixture.{name}={EXAMPLES}" for name in streams] + SETTINGS.get(defense, [])


def main() -> None:
    """Compiles what is missing, then writes the table."""
    every = {
        " ".join(case): [f"mesh={case[2]}", f"model={case[1]}", f"+defense={case[0]}", *overrides(case[0])]
        for case in cases()
    }
    results = compile_missing(RESULTS, every)
    print(table(results))


def table(results: dict) -> str:
    """The README's table, of what is recorded."""
    lines = [
        "| defense | model | mesh | arguments | temporaries | peak | of HBM | PFLOP a step | compute | HBM | interconnect |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in (" ".join(case) for case in cases()):
        if name in results:
            lines.append("| " + " | ".join([*name.split(), *_cells(results[name])]) + " |")
    return "\n".join(lines)


def _cells(found: dict) -> list[str]:
    memory, seconds = found["memory"], found["seconds"]
    sizes = [memory[part] / 2**30 for part in ("arguments", "temporaries", "peak")]
    parts = ("compute", "HBM", "interconnect")
    times = {part: f"{seconds[part]:.3g} s" if part in seconds else "–" for part in parts}
    bound = max(seconds, key=lambda part: seconds[part])
    times[bound] = f"**{times[bound]}**"
    share = f"{100 * memory['peak'] / found['hbm_bytes']:.0f}%"
    return [*(f"{size:.2f} GiB" for size in sizes), share, f"{found['flops'] / 1e15:.4g}", *times.values()]


if __name__ == "__main__":
    main()

"""Compiles steps for slices of growing size, with no TPU present, and writes the tables of docs/scaling.md.

    uv run --extra tpu python experiments/scaling/run.py [WORD...]   # the cases whose names have every word; all by default

Goes on where it was stopped: each case is one run of ``immunax.compile`` in a process of its own and leaves one file in
``results/``. A case of another kind, such as a population or two slices, is one more entry of :func:`cases`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "pod_fit"))

from compiled import compiled

from immunax.runtime.atomic import file
from immunax.runtime.configuration import configuration_folder

RESULTS = Path(__file__).parent / "results"
DEFENSES = ("safety_tuning", "rep_noise", "tar")
AXES = ("fsdp", "tensor")
"""Of the table; what is sent over `data` counts with `fsdp`, whose gradient it is."""
_DCN = ("sent between slices", "DCN")
ROWS_A_CHIP = 2
"""Rows of 512 tokens that each stream, inner batch and check has for every chip: what the slice of one table grows with."""

LARGE = {"safety_tuning": 2048, "tar": 2048, "rep_noise": 1024}
"""Rows that fill a chip of v5e. RepNoise compares all pairs of rows, on every chip."""


@dataclass(frozen=True)
class Case:
    """One step.

    Attributes:
      name: of its file, words by blanks.
      table: which it stands in.
      arguments: of ``immunax.compile``.
    """

    name: str
    table: str
    arguments: tuple[str, ...]


def cases() -> Iterator[Case]:
    """All of them, the most wanted first."""
    for chips in (256, 64, 16):
        for defense in DEFENSES:
            yield _defense(defense, "llama2_7b", f"v5e_{chips}", chips * ROWS_A_CHIP, "weak")
    yield _defense(
        "safety_tuning", "llama2_7b", "v5e_256", 512, "weak", "mesh.data=16", "mesh.fsdp=16", "mesh.tensor=1"
    )
    yield _defense("rep_noise", "llama2_7b", "v5e_64", 64 * ROWS_A_CHIP, "weak", "mesh.fsdp=64", "mesh.tensor=1")
    for defense in DEFENSES:
        yield _defense(defense, "llama2_7b", "v5e_256", 512 * ROWS_A_CHIP, "slices", "mesh.slices=2", "mesh.data=2")
    for defense, rows in LARGE.items():
        yield _defense(defense, "llama2_7b", "v5e_256", rows, "batch", "mesh.fsdp=128", "mesh.tensor=2")
        yield _defense(defense, "llama2_7b", "v5e_256", rows, "batch", "mesh.data=16", "mesh.fsdp=16", "mesh.tensor=1")
    yield _defense("rep_noise", "llama2_7b", "v5e_256", 1024, "batch", "mesh.data=4", "mesh.fsdp=64", "mesh.tensor=1")
    for rows in (1024, 2048):
        yield _defense(
            "rep_noise", "llama2_7b", "v5e_256", rows, "batch", "mesh.data=2", "mesh.fsdp=64", "mesh.tensor=2"
        )
    yield _defense("rep_noise", "llama2_7b", "v5e_256", 1152, "batch", "mesh.fsdp=128", "mesh.tensor=2")
    for defense in DEFENSES:
        yield _defense(defense, "llama2_7b", "v5e_256", 64, "batch")
    yield _defense("safety_tuning", "llama2_7b", "v5e_256", 256, "batch")
    yield _defense("safety_tuning", "llama2_7b", "v5e_256", 256, "batch", "mesh.fsdp=128", "mesh.tensor=2")
    yield _defense("safety_tuning", "llama2_7b", "v5e_256", 512, "batch", "mesh.fsdp=256", "mesh.tensor=1")
    for mesh, chips in (("v5p_64", 32), ("v5p_512", 256)):
        for defense in DEFENSES:
            yield _defense(defense, "llama3_70b" if chips == 256 else "llama2_7b", mesh, chips * ROWS_A_CHIP, "v5p")


def _defense(defense: str, model: str, mesh: str, rows: int, table: str, *sizes: str) -> Case:
    mixture = yaml.safe_load((configuration_folder() / "defense" / f"{defense}.yaml").read_text())["mixture"]
    streams = [name for name in ("safe", "harmful", "retain") if mixture[name]]
    streams += [f"simulation.{name}" for name in ("batch", "check") if "simulation" in mixture]
    counts = [f"defense.mixture.{name}={rows}" for name in streams]
    laid = " ".join(each.removeprefix("mesh.").replace("=", "") for each in sizes)
    name = " ".join(part for part in (defense, model, mesh, laid, f"rows{rows}") if part)
    return Case(name, table, (f"mesh={mesh}", f"model={model}", f"+defense={defense}", *sizes, *counts))


def main() -> None:
    """Compiles what is missing, then prints the tables of what there is."""
    RESULTS.mkdir(exist_ok=True)
    for case in cases():
        if all(word in case.name.split() for word in sys.argv[1:]) and not _path(case).exists():
            _compile(case)
    print(tables())


def _path(case: Case) -> Path:
    return RESULTS / f"{case.name.replace(' ', '-')}.json"


def _compile(case: Case) -> None:
    numbers = compiled(case.name, case.arguments)
    if numbers is not None:
        with file(_path(case)) as temp:
            temp.write_text(json.dumps(numbers, indent=1) + "\n")


def tables() -> str:
    """Markdown, one table after the other, each case that has a file."""
    made = {}
    for case in cases():
        if _path(case).exists():
            made.setdefault(case.table, []).append((case, json.loads(_path(case).read_text())))
    return "\n\n".join(f"{name}:\n\n{_table(rows)}" for name, rows in made.items())


def _table(rows: list[tuple[Case, dict]]) -> str:
    over_dcn = any(_over_dcn(found) for _, found in rows)
    columns = ("step", "mesh", "peak", "PFLOP", "products", "HBM", *(f"sent, {axis}" for axis in AXES))
    columns += ("interconnect", "waited", *(_DCN if over_dcn else ()), "step", "of products", "MFU")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join(lines + [f"| {case.name} | {' | '.join(_cells(found, over_dcn))} |" for case, found in rows])


def _over_dcn(found: dict) -> float:
    """Bytes of a device that go to other slices; records of one slice may be older than such."""
    return sum((found.get("device_sent_over_dcn_by_axis") or {}).values())


def _cells(found: dict, over_dcn: bool) -> list[str]:
    sizes = found["mesh"]
    mesh = " × ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
    peak = f"{found['memory']['peak'] / 2**30:.1f} GiB"
    if not found["fits"]:
        return [mesh, peak, f"{found['flops'] / 1e15:.4g}", "does not fit", *[""] * (8 + 2 * over_dcn)]
    seconds, step = found["seconds"], found["step_seconds"]
    sent = dict.fromkeys(AXES, 0.0)
    for axes, size in found["device_sent_by_axis"].items():
        sent["tensor" if axes == "tensor" else "fsdp"] += size
    waited = found["device_waited"] / sum(sent.values()) * seconds["interconnect"]
    return [
        mesh,
        peak,
        f"{found['flops'] / 1e15:.4g}",
        f"{seconds['compute']:.3g} s",
        f"{seconds['HBM']:.3g} s",
        *(f"{size / 2**30:.4g} GiB" for size in sent.values()),
        f"{seconds['interconnect']:.3g} s",
        f"{waited:.3g} s",
        *([f"{_over_dcn(found) / 2**30:.4g} GiB", f"{seconds['DCN']:.3g} s"] if over_dcn else []),
        f"{step:.3g} s",
        f"{step / seconds['compute']:.2f}",
        f"{100 * found['mfu']:.0f}%",
    ]


if __name__ == "__main__":
    main()

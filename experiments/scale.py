"""Scale tables: what an experiment takes at its paper's model on slices of TPUs, asked of XLA's TPU compiler. Nothing is run.

    uv run --extra tpu python experiments/scale.py [NAME...] [--checks N]   # all experiments that have scale=paper by default

Of each sweep ``+experiment=NAME scale=paper`` the programs are compiled for the mesh of :data:`SWEEPS`, N of each at most, as
``python -m tpu.launch plan`` does, and remembered for as long as the code is the same. ``experiments/NAME/scale.md`` gets a table
a command, ``scale.json`` what the compiler said.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from immunax.runs.tables import Table, as_markdown
from immunax.runtime.atomic import file
from tpu import check, job, package, prices
from tpu.slices import ROOT

_V5E = ("mesh=v5e_16", "mesh.fsdp=8", "mesh.tensor=2")  # batches of 8 of 7B
_V5P = ("mesh=v5p_64", "mesh.fsdp=8", "mesh.tensor=4")
SWEEPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "qi2023_ten_samples": {"attack": ("mesh=v5e_16",)},
    "bianchi2023_safety_tuning": {"train": ("mesh=v5e_16",)},
    "rosati2024_conditions": {"train": _V5E, "certify": ("mesh=v5e_16",)},
    "rosati2024_repnoise": {"train": _V5E, "attack": ("mesh=v5e_16",)},
    "tamirisa2024_tar": {"train": _V5P},
    "qi2024_durability": {"attack": _V5P},
    "huang2024_harmful_ratio": {"train": _V5E, "attack": ("mesh=v5e_16",)},
    "league": {"train": _V5P, "certify": ("mesh=v5e_16",)},
    "estimators": {"train": _V5P},
    "scaling": {"train": ("mesh=v5p_512", "mesh.fsdp=64", "mesh.tensor=4")},
}
"""By experiment and command, the mesh that the line names: the smallest that holds the step."""

ZONE = "us-east5-a"
"""Where prices are of; it has all three kinds of chips."""
CAPACITY = ("on-demand", "spot")
GIB = 2**30


def sweep(name: str, command: str, mesh: Sequence[str], most: int) -> dict[str, Any]:
    """What one sweep comes to.

    Args:
      name: of the experiment.
      command: such as ``train``.
      mesh: overrides of the line.
      most: programs that are compiled.

    Returns:
      Its ``line``, ``runs``, ``programs`` (how many there are) and those that were ``compiled``.
    """
    words = (f"immunax.{command}", "-m", f"+experiment={name}", "scale=paper", *mesh)
    given, interpreter = job.read(words), package.python(None)
    shape = job.shape_of(given, None)
    runs = package.runs(interpreter, given)
    programs = list(dict.fromkeys(tuple(run.compile or ()) for run in runs))
    chosen = check.spread(programs, most)
    compiled = []
    for number, arguments in enumerate(chosen, 1):
        found = check.record(interpreter, arguments, shape, 1, f"{number} of {len(chosen)}")
        compiled.append({"of": _differing(arguments, programs), **found})
    dollars = {each: prices.of(shape, 1, ZONE, each).hour for each in CAPACITY}
    return {
        "line": f"python -m {' '.join(given.arguments)}",
        "type": shape.type,
        "chips": shape.chips,
        "runs": len(runs),
        "programs": len(programs),
        "dollars_an_hour": dollars,
        "compiled": compiled,
    }


def _differing(arguments: Sequence[str], programs: Sequence[Sequence[str]]) -> str:
    shared = set(programs[0]).intersection(*map(set, programs))
    own = [text.lstrip("+").partition("=") for text in arguments if text not in shared]
    return ", ".join(f"{key.rpartition('.')[2].rpartition('@')[2]}={value}" for key, _, value in own) or "all"


def told(found: Mapping[str, Any]) -> str:
    """A sweep as Markdown: a row a program, then the sum.

    Args:
      found: of :func:`sweep`.
    """
    rows, hours = [], []
    for each in found["compiled"]:
        if not each["fits"]:
            rows.append([each["of"], "does not fit", None, None, None])
            continue
        hours.append(each["run_seconds"] / 3600)
        memory, step = each["memory"]["peak"] / GIB, max(each["seconds"].values())
        rows.append([each["of"], f"{memory:.1f} GiB", f"{step:.3g} s", each["bound"], f"{hours[-1]:.3g}"])
    table = as_markdown(Table(["program", "peak of a chip", "step, at the least", "bound by", "hours a run"], rows))
    shown = f"```sh\n{found['line']}\n```\n\n{table}"
    if not hours:
        return shown
    whole = sum(hours) / len(hours) * found["runs"]
    money = " or ".join(f"${whole * dollars:,.2f} {kind}" for kind, dollars in found["dollars_an_hour"].items())
    some = "" if len(hours) == found["programs"] else f" (the mean of {len(hours)} of {found['programs']} programs)"
    return f"{shown}\n{found['runs']} runs{some}: {whole:.3g} hours of {found['chips']} chips ({found['type']}), {money}.\n"


HEAD = f"""\
# Scale table

What the compiler for TPUs says of this experiment at its paper's model, by `experiments/scale.py`; nothing of it was run. A step
takes at least what its products, memory or links need, so hours are a bound from below: evaluations, compiling, loading and
saving come on top. Prices are those of `tpu/prices.json` in {ZONE}.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Writes the tables of some experiments.

    Args:
      words: of the command line.
    """
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", default=list(SWEEPS), metavar="NAME")
    options.add_argument("--checks", type=int, default=3)
    given = options.parse_args(words)
    for name in given.names:
        found = [sweep(name, command, mesh, given.checks) for command, mesh in SWEEPS[name].items()]
        folder = ROOT / "experiments" / name
        text = "\n".join([HEAD, *map(told, found)])
        for target, body in (("scale.json", json.dumps(found, indent=1) + "\n"), ("scale.md", text)):
            with file(folder / target) as temp:
                temp.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    main()

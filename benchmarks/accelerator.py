"""How fast immunax uses an accelerator, beside PyTorch eager and compiled, in one run.

    uv run python benchmarks/accelerator.py --torch PYTHON [--out FILE] [--minutes N] [--only CASE ...]

PYTHON is one that has torch, transformers and peft; without it those rows are left out. Needs no network and no weights: both
sides make random ones of a shape. Each side of each case runs in a process of its own, so that its peak memory is its own and
one that fails, hangs or does not fit is a row that says so. Prints the table and the goals, and keeps every raw time in FILE,
which ``--show FILE`` prints again; what FILE has of this device already is not measured anew. ``--tiny`` runs every case on a CPU
in two minutes. ``--view`` measures nothing: it compiles immunax's side of each case for an H200, on a machine without one, and
tells what the compiler made of it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from accelerated import catalogue, table
from accelerated.catalogue import CASES, Case
from accelerated.launch import MEASURE, VIEW, Limits, commands, run
from accelerated.record import DONE, Report, read, write

_LIMIT = 240.0
"""Seconds of one process, unless others are asked for."""


def begun(options: argparse.Namespace) -> Report:
    """What an earlier run left in the file that this one writes, or nothing."""
    if options.out is None or not options.out.is_file():
        return Report(options.tiny, options.view)
    known = read(options.out)
    if (known.tiny, known.view) != (options.tiny, options.view):
        raise SystemExit(
            f"{options.out}: is of a run with other options of --tiny and --view; give another --out FILE."
        )
    return known.only(DONE)


def reported(options: argparse.Namespace, cases: tuple[Case, ...]) -> Report:
    """Runs what is asked for and missing, and keeps each row as soon as it is there."""
    if options.view:
        from accelerated import h200  # it imports jax, which nothing else here does

        h200.check_compiler()

    def keep(report: Report) -> None:
        if options.out is not None:
            write(options.out, report)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    wanted = catalogue.viewed(cases, "gpu") if options.view else catalogue.measured(cases)
    end = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    command = commands(options.tiny, options.torch, VIEW if options.view else MEASURE)
    at_once = (os.cpu_count() or 1) if options.tiny else 1
    return run(begun(options), wanted, command, Limits(options.limit, end), say, keep, at_once)


def main() -> None:
    """Measures, compiles or shows."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with torch, transformers and peft")
    parser.add_argument("--only", nargs="+", choices=names, metavar="CASE", help=", ".join(names))
    parser.add_argument("--out", type=Path, metavar="FILE", help="keeps every raw time, as JSON")
    parser.add_argument("--minutes", type=float, metavar="N", help="ends after N minutes with what there is")
    parser.add_argument("--limit", type=float, default=_LIMIT, metavar="SECONDS", help=f"of one process ({_LIMIT:.0f})")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU runs in two minutes")
    parser.add_argument("--show", type=Path, metavar="FILE", help="prints the table of a run that --out kept")
    parser.add_argument("--view", action="store_true", help="what the compiler makes of the cases for an H200")
    options = parser.parse_args()
    cases = tuple(case for case in CASES if not options.only or case.name in options.only)
    report = read(options.show) if options.show else reported(options, cases)
    print("\n".join(table.lines(report)))


if __name__ == "__main__":
    main()

"""``python -m tests.fuzz --inputs 100000``: every parser of strangers' files against changed ones.

Prints a table, and each input that ended in a traceback, hung, took too much memory or ran something, as SEED/PARSER/NUMBER; give
these as ``--seed SEED --parser PARSER --only NUMBER`` to have it alone. The exit status is 1 where there was one.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import campaign
from fuzz.parsers import PARSERS

_COLUMNS = ("accepted", "refused", "traceback", "timeout", "memory", "died", "foreign")


def main() -> int:
    names = [each.name for each in PARSERS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="over all parsers that are chosen")
    parser.add_argument("--parser", action="append", choices=names, help="one of them; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one input")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = options.parser or names
    if options.only is not None:
        print(*campaign.lines_of(chosen[:1], options.seed, options.only, options.only + 1, 1), sep="\n")
        return 0
    tallies = campaign.run(chosen, options.seed, options.inputs, options.processes)
    print(f"| parser | inputs | {' | '.join(_COLUMNS)} | slowest, s | largest, MiB |")
    print(f"|{' --- |' * (len(_COLUMNS) + 4)}")
    total = campaign.Tally()
    for name, tally in tallies.items():
        print(_row(name, tally))
        total.counts += tally.counts
        total.faults += tally.faults
        total.slowest, total.grown = max(total.slowest, tally.slowest), max(total.grown, tally.grown)
    print(_row("all", total))
    print(*total.faults, sep="\n")
    return 1 if total.faults else 0


def _row(name: str, tally: campaign.Tally) -> str:
    counts = " | ".join(str(tally.counts[each]) for each in _COLUMNS)
    return f"| {name} | {tally.counts.total()} | {counts} | {tally.slowest:.1f} | {tally.grown >> 20} |"


if __name__ == "__main__":
    sys.exit(main())

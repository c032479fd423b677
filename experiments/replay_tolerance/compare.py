"""How far two honest certificates of one model lie apart: what a replay's tolerance rests on.

``python experiments/replay_tolerance/compare.py ONE OTHER``: folders of certificates of the same model, suite and seed, made on
two machines, with other numbers of threads, or with other versions of the library. Reads tables, runs nothing.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from immunax.certificate.comparison import Cell, Part, parts
from immunax.certificate.verify import tables
from immunax.conditions.records import Table
from immunax.runtime import console


def compared(one: Path, other: Path) -> dict[str, list[Part]]:
    """The parts of every cell that both have, by cell."""
    (records, cells), (records_anew, cells_anew) = tables(one), tables(other)
    shared = sorted(set(cells["cell"]) & set(cells_anew["cell"]))
    return {name: parts(_of(records, cells, name), _of(records_anew, cells_anew, name)) for name in shared}


def _of(records: Table, cells: Table, name: str) -> Cell:
    return Cell(records[records["cell"] == name], cells[cells["cell"] == name])


def show(found: dict[str, list[Part]]) -> None:
    """Prints the distribution."""
    every = [part for each in found.values() for part in each]
    answers = [part for part in every if part.answers]
    rows = []
    for name in ("served", "changed"):
        counts = Counter(getattr(part, name) for part in answers)
        told = ", ".join(f"{value:+d}: {count}" for value, count in sorted(counts.items()))
        largest = max((abs(getattr(part, name)) / part.answers for part in answers), default=0.0)
        rows.append([name, f"{len(answers)} parts", told, f"{largest:.1%}"])
    for name in ("moved", "scattered"):
        far = np.abs([getattr(part, name) for part in every if not part.answers] or [0.0])
        told = ", ".join(f"{share:.0%} below {np.quantile(far, share):.2%}" for share in (0.5, 0.9, 0.99))
        rows.append([name, f"{len(far)} parts", told, f"{far.max():.2%}"])
    total = sum(part.answers for part in answers)
    served, changed = (sum(getattr(part, name) for part in answers) for name in ("served", "changed"))
    rows.append(["together", f"{len(found)} cells, {total} answers", f"{served:+d} served, {changed} changed", ""])
    console.table("differences", ["of", "among", "how many", "largest"], rows)


def main() -> None:
    """Compares two folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    show(compared(options.one, options.other))


if __name__ == "__main__":
    main()

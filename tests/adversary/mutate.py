"""``python -m tests.adversary.mutate --mutations 10000 --seed 0``: a good certificate changed by a cheat who knows the format.

Prints a table by kind of mutation, and each mutation that was accepted although a reader is told something else, by its number,
which ``--only NUMBER`` repeats. The exit status is 1 where there was one.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from adversary.forge import good
from adversary.mutations import KINDS, mutate
from adversary.shared import shared
from adversary.verifiers import Truth

OUTCOMES = ("refused", "another", "unchanged", "words", "within", "hole")


class Mutated(NamedTuple):
    """One mutation.

    Attributes:
      number: with the seed, what it was drawn by.
      kind: of :data:`~adversary.mutations.KINDS`.
      what: was changed.
      outcome: of :data:`OUTCOMES`.
      by: what told it.
    """

    number: int
    kind: str
    what: str
    outcome: str
    by: str


def run(numbers: Sequence[int], seed: int, kinds: Sequence[str] = KINDS) -> list[Mutated]:
    """Makes mutations of one certificate, and says of each what came of it.

    Args:
      numbers: of the mutations; each is made alone.
      seed: of all of them.
      kinds: taken in turn.
    """
    with tempfile.TemporaryDirectory() as place, shared():
        whole = Path(place, "good")
        truth = Truth(good(whole, full=True))
        return [
            _one(truth, whole, Path(place, "mutated"), seed, number, kinds[number % len(kinds)]) for number in numbers
        ]


def _one(truth: Truth, whole: Path, folder: Path, seed: int, number: int, kind: str) -> Mutated:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    path = folder / "certificate.json"
    rng = random.Random(f"{seed}/{number}")
    return Mutated(number, kind, mutate(rng, path, kind), *truth.outcome(path))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary.mutate", description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one mutation")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.only is not None:
        print(*run([options.only], options.seed)[0])
        return 0
    # In stretches: kinds are taken in turn, and some cost ten times as much as others.
    ends = [options.mutations * part // options.processes for part in range(options.processes + 1)]
    parts = [range(*stretch) for stretch in pairwise(ends)]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        found = [each for part in pool.map(run, parts, [options.seed] * len(parts)) for each in part]
    return told(found)


def told(found: Sequence[Mutated]) -> int:
    """Prints the table and the holes, and gives the exit status."""
    print(f"| kind | mutations | {' | '.join(OUTCOMES)} |")
    print(f"|{' --- |' * (len(OUTCOMES) + 2)}")
    for kind in (*KINDS, "all"):
        counts = Counter(each.outcome for each in found if kind in ("all", each.kind))
        print(f"| {kind} | {counts.total()} | {' | '.join(str(counts[name]) for name in OUTCOMES)} |")
    for outcome in ("refused", "another", "within"):
        by = Counter(each.by for each in found if each.outcome == outcome)
        print(f"\n{outcome} by: " + ", ".join(f"{name} {count}" for name, count in by.most_common()))
    holes = sorted(each for each in found if each.outcome == "hole")
    print(*(f"{each.number}: {each.what}: {each.by}" for each in holes), sep="\n")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())

"""Inputs dealt out to processes with limits, and what came of them, by parser."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.worker import MEMORY

SECONDS = 60
"""Of one input; a rendering and a table have limits of their own below that."""
_START = 300
_TESTS = Path(__file__).parents[1]


@dataclass
class Tally:
    """What came of the inputs of one parser; ``faults`` name each that is none of accepted and refused."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0

    def add(self, line: dict, key: str) -> None:
        outcome = line["outcome"]
        if outcome in ("accepted", "refused") and line["foreign"]:
            outcome, line["detail"] = "foreign", ", ".join(line["foreign"])
        elif line["grown"] > MEMORY:
            outcome = "memory"
        self.counts[outcome] += 1
        self.slowest = max(self.slowest, line["seconds"])
        self.grown = max(self.grown, line["grown"])
        if outcome not in ("accepted", "refused"):
            self.faults.append(f"{key}/{line['input']} {outcome}: {line['detail']}")


def run(names: Sequence[str], seed: int, inputs: int, processes: int = 1) -> dict[str, Tally]:
    """Reads so many inputs, of each parser in turn.

    Args:
      names: of the parsers.
      seed: of the inputs, with the parser's name and the number of its turn.
      inputs: how many in all.
      processes: at a time.

    Returns:
      What came of them, by parser.
    """
    tallies = {name: Tally() for name in names}
    with ThreadPoolExecutor(processes) as pool:
        for lines in pool.map(lambda first: list(lines_of(names, seed, first, inputs, processes)), range(processes)):
            for line in lines:
                name = names[line["place"] % len(names)]
                tallies[name].add(line, f"{seed}/{name}")
    return tallies


def lines_of(names: Sequence[str], seed: int, first: int, last: int, step: int) -> Iterator[dict]:
    """What came of every ``step``-th input from the first on: a process that hangs or dies is one line, and the next goes on."""
    while first < last:
        with tempfile.TemporaryDirectory() as place:
            process = _start(names, [seed, first, last, step], place)
            patience, partial, ready = float(_START), b"", False
            assert process.stdout is not None
            while True:
                started = time.monotonic()
                heard = select.select([process.stdout], [], [], patience)[0]
                part = os.read(process.stdout.fileno(), 1 << 16) if heard else b""
                if not part:
                    break
                *whole, partial = (partial + part).split(b"\n")
                for each in map(json.loads, whole):
                    if ready:
                        yield each
                        first = each["place"] + step
                    ready, patience = True, float(SECONDS)
            seconds = time.monotonic() - started
            process.kill()
            code = process.wait()
        if not ready:
            raise RuntimeError(f"the good files of {', '.join(names)} cannot be read")
        if first < last:
            about = {"outcome": "died" if heard else "timeout", "detail": f"exit {code}", "seconds": seconds}
            yield {"place": first, "input": first // len(names), "grown": 0, "foreign": [], **about}
            first += step


def _start(names: Sequence[str], numbers: Sequence[int], place: str) -> "subprocess.Popen[bytes]":
    paths = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
    fresh = {"PYTHONPATH": paths, "IMMUNAX_CACHE": str(Path(place, "cache")), "TMPDIR": place, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "fuzz.worker", ",".join(names), *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **fresh, "XLA_FLAGS": "", "PYTHONHASHSEED": "0"},
    )

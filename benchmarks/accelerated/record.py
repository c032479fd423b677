"""What a run of the benchmark leaves: every raw time of every row, and what it was measured on."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from accelerated.catalogue import PEAK, Case

DONE, FAILED, STOPPED, SKIPPED, UNTRIED = "done", "failed", "stopped", "skipped", "not started"
"""How a row ended: measured, or compiled where that is all; with an error; at its time limit; not possible here; after the
minutes were spent."""


@dataclass(frozen=True)
class Row:
    """One side of one case.

    Attributes:
      case, side: as the catalogue names them.
      status: how it ended, one of those above.
      reason: why it is not done.
      seconds: of each repeat, warm-up and compilation left out.
      units: tokens, attacks, steps or calls of a repeat.
      flops: that a repeat needs by its mathematics; None where they are not counted.
      peak_bytes: the most of the device's memory that the process held; of the process itself where it computes on the CPU.
      compile_seconds: before the first repeat.
      wall_seconds: of the whole process.
      details: whatever else was seen.
    """

    case: str
    side: str
    status: str = DONE
    reason: str = ""
    seconds: tuple[float, ...] = ()
    units: float = 0.0
    flops: float | None = None
    peak_bytes: int | None = None
    compile_seconds: float | None = None
    wall_seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there are times."""
        return self.status == DONE and bool(self.seconds)

    @property
    def rate(self) -> float:
        """Units a second, by the median repeat."""
        return self.units / median(self.seconds)

    @property
    def flops_per_s(self) -> float | None:
        """Useful FLOPs a second, by the median repeat."""
        return None if self.flops is None else self.flops / median(self.seconds)


@dataclass(frozen=True)
class Report:
    """A run of the benchmark.

    Attributes:
      tiny: whether cases had their tiny sizes.
      view: whether they were compiled for a chip that is not there, and not run.
      facts: device, platform, memory and versions, of ``immunax`` and, where it ran, of ``torch``.
      rows: so far, in the order in which they were measured.
    """

    tiny: bool
    view: bool = False
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def row(self, case: str, side: str) -> Row | None:
        """A row that has been measured, or None."""
        return next((row for row in self.rows if (row.case, row.side) == (case, side) and row.measured), None)

    @property
    def peak(self) -> float | None:
        """The matrix peak of the same run, FLOP/s, by its best repeat."""
        found = next((row for row in self.rows if row.case == PEAK and row.measured), None)
        return None if found is None or found.flops is None else found.flops / min(found.seconds)

    @property
    def device(self) -> str:
        """Its name."""
        return str(self.facts.get("immunax", {}).get("device", "unknown device"))

    def with_row(self, row: Row, facts: dict[str, Any] | None = None) -> "Report":
        """The report with one row more, and what its process said of its device.

        Raises:
          SystemExit: the rows before it are of another device, or of other versions.
        """
        side = "immunax" if row.side.startswith("immunax") else "torch"
        known = self.facts.get(side, facts)
        for name in ("device", "versions"):
            if facts and known and facts.get(name) != known.get(name):
                raise SystemExit(
                    f"{name} {facts.get(name)}: the rows before are of {known.get(name)}; give another --out FILE."
                )
        return replace(self, facts={**self.facts, **({side: known} if known else {})}, rows=(*self.rows, row))

    def only(self, status: str) -> "Report":
        """The report with the rows alone that ended so."""
        return replace(self, rows=tuple(row for row in self.rows if row.status == status))


def skipped(case: Case, memory: float) -> dict[str, Any]:
    """The fields of a row whose case does not fit a device with so many free bytes."""
    free = f"{memory / 2**30:.0f} GiB"
    return {"status": SKIPPED, "reason": f"needs {case.gib:.0f} GiB of device memory, and {free} are free"}


def write(path: Path, report: Report) -> None:
    """Writes a report as JSON, whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(asdict(report), indent=1) + "\n")
    os.replace(beside, path)


def read(path: Path) -> Report:
    """Reads what :func:`write` wrote."""
    found = json.loads(path.read_text())
    return Report(found["tiny"], found["view"], found["facts"], tuple(_rows(found["rows"])))


def _rows(written: list[dict[str, Any]]) -> Iterator[Row]:
    for each in written:
        yield Row(**{**each, "seconds": tuple(each["seconds"])})

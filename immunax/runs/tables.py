"""A table for people and for programs: on the screen, as Markdown, as CSV, as parquet.

On the screen and in Markdown a number stands with its interval in one cell, and strangers' text is escaped; CSV and parquet have
a column for each end, and text as it is.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from immunax.certificate.report.markdown import markdown
from immunax.conditions.statistics import Estimate
from immunax.runtime import atomic, console

_NONE = "–"


class Mean(NamedTuple):
    """A mean over runs.

    Attributes:
      estimate: with its interval.
      count: runs that have a value.
      runs: of the group.
    """

    estimate: Estimate
    count: int
    runs: int


@dataclass(frozen=True)
class Table:
    """Headings and rows.

    Attributes:
      headings: of the columns.
      rows: a cell a column: plain values, times, estimates, means, None.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]


def text(cell: Any) -> str:
    """What a cell says, unescaped."""
    if isinstance(cell, Mean):
        told = text(cell.estimate)
        return told if cell.count == cell.runs else f"{told} ({cell.count} of {cell.runs})"
    if isinstance(cell, Estimate):
        value, *ends = (_NONE if math.isnan(each) else f"{each:.3g}" for each in cell)
        return value if ends == [_NONE, _NONE] else f"{value} [{', '.join(ends)}]"
    if isinstance(cell, datetime):
        return cell.isoformat(" ", "seconds")
    if isinstance(cell, bool):
        return str(cell).lower()
    return console.cell_text(cell)


def show(table: Table, title: str) -> None:
    """Prints a table to standard output.

    Args:
      table: to print.
      title: above it.
    """
    rows = [[cell if type(cell) in (int, float, str, type(None)) else text(cell) for cell in row] for row in table.rows]
    console.table(title, table.headings, rows)


def write(table: Table, path: Path) -> None:
    """Writes a table, whole or not at all, in the format that the file's name ends in.

    Args:
      table: to write.
      path: ends in ``.md``, ``.csv`` or ``.parquet``.

    Raises:
      UserError: the disk is full, or may not be written to.
    """
    with atomic.refusals(path), atomic.file(path) as temp:
        _WRITERS[path.suffix](table, temp)


def as_markdown(table: Table) -> str:
    """A table of GitHub's Markdown, numbers on the right."""
    right = [
        all(isinstance(row[place], (int, float, type(None))) for row in table.rows)
        for place in range(len(table.headings))
    ]
    lines = [
        [markdown(heading) for heading in table.headings],
        ["---:" if each else "---" for each in right],
        *([_marked(cell) for cell in row] for row in table.rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _marked(cell: Any) -> str:
    # What is ours needs no escape: brackets of an interval stand as they are.
    return markdown(cell) if isinstance(cell, str) else text(cell)


def spread(table: Table) -> Table:
    """The same with a column for each part of estimates and means: ``NAME``, ``NAME.low``, ``NAME.high``, ``NAME.n``."""
    headings: list[str] = []
    columns: list[list[Any]] = []
    for place, heading in enumerate(table.headings):
        cells = [row[place] for row in table.rows]
        if any(isinstance(cell, (Estimate, Mean)) for cell in cells):
            parts = [_parts(cell) for cell in cells]
            counted = any(isinstance(cell, Mean) for cell in cells)
            for number, end in enumerate(("", ".low", ".high", *([".n"] if counted else []))):
                headings.append(f"{heading}{end}")
                columns.append([part[number] for part in parts])
        else:
            headings.append(heading)
            columns.append(cells)
    return Table(headings, list(zip(*columns, strict=True)))


def _parts(cell: Any) -> list[Any]:
    if cell is None:
        return [None] * 4
    estimate, count = (cell.estimate, cell.count) if isinstance(cell, Mean) else (cell, None)
    return [*(None if math.isnan(each) else each for each in estimate), count]


def _write_markdown(table: Table, path: Path) -> None:
    path.write_text(as_markdown(table), encoding="utf-8")


def _write_csv(table: Table, path: Path) -> None:
    wide = spread(table)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(wide.headings)
        writer.writerows(wide.rows)


def _write_parquet(table: Table, path: Path) -> None:
    import pyarrow  # and pandas with it
    from pyarrow import parquet

    wide = spread(table)
    columns = [pyarrow.array([row[place] for row in wide.rows]) for place in range(len(wide.headings))]
    parquet.write_table(pyarrow.Table.from_arrays(columns, list(wide.headings)), path)


_WRITERS = {".md": _write_markdown, ".csv": _write_csv, ".parquet": _write_parquet}

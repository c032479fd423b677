"""The two tables that certificates rest on, of those runs that have them."""

from collections.abc import Iterator, Sequence
from typing import Any

from immunax.runs.read import Run
from immunax.runtime.errors import UserError


def certified(runs: Sequence[Run], faults: list[str]) -> Iterator[tuple[Run, Any, Any]]:
    """Every run with a certificate, and its tables ``records`` and ``cells``.

    Args:
      runs: to read.
      faults: gets a line for each table that cannot be read.
    """
    # pandas with it, and children to read in.
    from immunax.conditions import records

    for run in runs:
        cells = run.place.folder / records.CELLS_FILE
        if not cells.exists():
            continue
        try:
            states = records.read(cells, records.CELLS)
            measured = records.read(run.place.folder / records.RECORDS_FILE, records.RECORDS)
        except UserError as error:
            faults.append(str(error))
            continue
        yield run, measured, states

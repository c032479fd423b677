"""The cells of certificates as rows: one attack with one setting and one seed on one model, at one of its steps."""

from collections.abc import Iterator, Sequence
from typing import Any

from immunax.runs.flatten import Value, plain
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run
from immunax.runtime.errors import UserError

WHAT = "cell"
SETTINGS = ("model", "family", "setting", "seed", "template", "step")
"""Columns that tell the cells of one certificate apart."""

SHOWN = (*SETTINGS, "test.judge.")
"""Columns, or beginnings of their names, that a table shows which was asked for none."""


def cells(runs: Sequence[Run]) -> tuple[Frame, list[str]]:
    """One row for every state that a certificate measured: the columns of ``cells.parquet``, and what was measured there,
    ``SPLIT.judge.NAME`` and ``SPLIT.MEASURE``: the mean over examples, or of likelihoods nats a token.

    Args:
      runs: to read; those without tables of a certificate have no rows.

    Returns:
      The rows; one line for each table that cannot be read.
    """
    # pandas with it, and children to read in.
    from immunax.conditions import records

    rows: list[Row] = []
    faults: list[str] = []
    for run in runs:
        paths = [run.place.folder / name for name in (records.CELLS_FILE, records.RECORDS_FILE)]
        if not paths[0].exists():
            continue
        try:
            states = records.read(paths[0], records.CELLS)
            measured = records.read(paths[1], records.RECORDS)
        except UserError as error:
            faults.append(str(error))
            continue
        means = _means(measured)
        for state in states.to_dict("records"):
            own = {name: plain(value) for name, value in state.items()}
            own |= means.get((state["cell"], state["step"]), {})
            rows.append(Row(own, run.values))
    return Frame(rows, WHAT), faults


def _means(measured: Any) -> dict[tuple[str, int], dict[str, Value]]:
    """By cell and step, each measure's sum over what it counts."""
    found: dict[tuple[str, int], dict[str, Value]] = {}
    for cell, step, name, value in _quotients(measured):
        found.setdefault((cell, step), {})[name] = value
    return found


def _quotients(measured: Any) -> Iterator[tuple[str, int, str, float]]:
    sums = measured.groupby(["cell", "step", "split", "measure"], sort=False)[["value", "weight"]].sum()
    for (cell, step, split, measure), value, weight in zip(sums.index, sums["value"], sums["weight"], strict=True):
        yield cell, int(step), f"{split}.{measure.replace('/', '.')}", float(value) / float(weight)

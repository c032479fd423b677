"""Where the tables of runs come from: their folders, or what a figure kept of them. Each is read when it is first asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from immunax.runs import cells, curves, harm
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run

Read = tuple[Frame, Sequence[str]]
"""Rows, and one line for each file that cannot be read."""

LAST = "last"


class Below(NamedTuple):
    """A table that has several rows a run.

    Attributes:
      what: the noun for a row.
      apart: columns that tell the rows of one run apart.
      read: the rows of some runs.
    """

    what: str
    apart: Sequence[str]
    read: Callable[[Sequence[Run]], Read]


BELOW: Mapping[str, Below] = {
    "curves": Below(curves.WHAT, (curves.STEP,), curves.curves),
    "cells": Below(cells.WHAT, cells.SETTINGS, cells.cells),
    "families": Below(harm.FAMILY, harm.FAMILIES, harm.families),
    "budgets": Below(harm.BUDGET, harm.BUDGETS, harm.budgets),
}
"""By name."""


@dataclass(frozen=True)
class Source:
    """The tables of some runs.

    Attributes:
      runs: a row each.
      read: by name the tables of :data:`BELOW`, and the runs with what they logged last.
    """

    runs: Frame
    read: Mapping[str, Callable[[], Read]]
    _known: dict[str, Read] = field(default_factory=dict, repr=False)

    def last(self) -> Read:
        """The runs with the columns ``metrics.PHASE.NAME``."""
        return self.table(LAST)

    def table(self, name: str) -> Read:
        """A table.

        Args:
          name: of :attr:`read`.
        """
        if name not in self._known:
            self._known[name] = self.read[name]()
        return self._known[name]


def of_folders(runs: Sequence[Run]) -> Source:
    """The tables of runs in folders.

    Args:
      runs: from :func:`~immunax.runs.read.read_runs`.
    """

    def last() -> Read:
        told, faults = curves.with_last(runs)
        return _frame(told), faults

    return Source(_frame(runs), {LAST: last, **{name: partial(each.read, runs) for name, each in BELOW.items()}})


def _frame(runs: Sequence[Run]) -> Frame:
    return Frame([Row(run.values) for run in runs])

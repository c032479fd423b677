"""Where the tables of runs come from: their folders, or what a figure kept of them. Each is read when it is first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from immunax.runs import cells, curves
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run

Read = tuple[Frame, Sequence[str]]
"""Rows, and one line for each file that cannot be read."""


@dataclass(frozen=True)
class Source:
    """The tables of some runs.

    Attributes:
      runs: a row each.
      read_last, read_curves, read_cells: the runs with what they logged last; the lines that they logged; the states that
        certificates measured.
    """

    runs: Frame
    read_last: Callable[[], Read]
    read_curves: Callable[[], Read]
    read_cells: Callable[[], Read]
    _known: dict[str, Read] = field(default_factory=dict, repr=False)

    def last(self) -> Read:
        """The runs with the columns ``metrics.PHASE.NAME``."""
        return self._once("last", self.read_last)

    def curves(self) -> Read:
        """See :func:`~immunax.runs.curves.curves`."""
        return self._once("curves", self.read_curves)

    def cells(self) -> Read:
        """See :func:`~immunax.runs.cells.cells`."""
        return self._once("cells", self.read_cells)

    def _once(self, name: str, read: Callable[[], Read]) -> Read:
        if name not in self._known:
            self._known[name] = read()
        return self._known[name]


def of_folders(runs: Sequence[Run]) -> Source:
    """The tables of runs in folders.

    Args:
      runs: from :func:`~immunax.runs.read.read_runs`.
    """

    def last() -> Read:
        told, faults = curves.with_last(runs)
        return _frame(told), faults

    return Source(_frame(runs), last, lambda: curves.curves(runs), lambda: cells.cells(runs))


def _frame(runs: Sequence[Run]) -> Frame:
    return Frame([Row(run.values) for run in runs])

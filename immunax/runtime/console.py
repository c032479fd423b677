"""What a person sees while a run goes on: progress with rate and time left, phases with their time, tables.

Process 0 alone prints. Progress goes to standard error, tables to standard output, so that a command's result can be
piped. Where there is no terminal, a bar becomes a plain line every ten seconds.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from immunax.runtime.distributed import is_leader
from immunax.runtime.escaped import escaped, taking_all

FILE_WIDTH = 160
"""Columns of a table where there is no terminal."""

LINE_SECONDS = 10.0
"""How often a bar without a terminal prints a line."""


def _console(stderr: bool) -> Console:
    # Built at each use: a stream that a test or a notebook has replaced since is then the one written to.
    taking_all(sys.stderr if stderr else sys.stdout)
    console = Console(stderr=stderr, quiet=not is_leader(), highlight=False, soft_wrap=True)
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, quiet=not is_leader(), highlight=False, soft_wrap=True, width=FILE_WIDTH)
    )


def _plain(text: str) -> Text:
    """A text in which nothing is markup, nor the name of a picture."""
    return Text(escaped(text))


def note(text: str) -> None:
    """Prints one line to standard error, from process 0.

    Args:
      text: the line, escaped where it has to be.
    """
    _console(stderr=True).print(_plain(text))


class Bar:
    """Progress through one phase; ``advance`` it once a step. Made by ``progress``."""

    def __init__(self, description: str, total: int, unit: str, bars: Progress | None) -> None:
        self._description, self._total, self._unit, self._bars = description, total, unit, bars
        self._begin = self._printed = time.monotonic()
        self._done, self._values = 0, ""
        self._task = None
        if bars is not None:
            self._task = bars.add_task(escaped(description), total=total, rate="", values="")

    def advance(self, count: int = 1, **values: float) -> None:
        """Counts work as done.

        Args:
          count: how many units.
          **values: numbers to show beside, such as the loss.
        """
        self._done += count
        if values:
            self._values = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=count, rate=self._rate(), values=self._values)
        elif time.monotonic() - self._printed >= LINE_SECONDS and self._done < self._total:
            self._line(f"{_span(self._left())} left")

    def _seconds(self) -> float:
        return max(time.monotonic() - self._begin, 1e-9)

    def _left(self) -> float:
        return (self._total - self._done) * self._seconds() / max(self._done, 1)

    def _rate(self) -> str:
        each = self._seconds() / max(self._done, 1)
        return f"{each:.2f} s/{self._unit}" if each > 1 else f"{1 / each:.1f} {self._unit}/s"

    def _line(self, ending: str) -> None:
        self._printed = time.monotonic()
        parts = [f"{self._description}: {self._done}/{self._total} {self._unit}", self._rate(), ending, self._values]
        note(", ".join(part for part in parts if part))

    def finish(self) -> None:
        """Prints the last line where there is no terminal; a bar on a terminal has stayed on the screen."""
        if self._bars is None:
            self._line(_span(self._seconds()))


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def progress(description: str, total: int, unit: str = "step") -> Iterator[Bar]:
    """Shows progress for the length of the block.

    Args:
      description: what is going on.
      total: how many units there are.
      unit: the singular noun for one.

    Yields:
      The bar, to ``advance``.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        bar = Bar(description, total, unit, None)
        yield bar
        bar.finish()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield Bar(description, total, unit, bars)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Says that a phase begins and, when it is over, how long it took.

    Args:
      name: what is going on.
    """
    note(f"{name} ...")
    begin = time.monotonic()
    yield
    note(f"{name}: {time.monotonic() - begin:.1f} s")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table to standard output, from process 0.

    Args:
      title: above the table.
      columns: the headings.
      rows: one cell a column; numbers are aligned right, floats shown to four digits.
    """
    shown = Table(title=_plain(title), title_justify="left")
    numeric = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        shown.add_column(_plain(name), justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_plain(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row))
    _console(stderr=False).print(shown)

"""What a person sees while a run goes on: progress with rate and time left, phases with their time, tables.

Process 0 alone prints. Progress goes to standard error, tables to standard output, so that a command's result can be
piped. Where there is no terminal, a bar becomes a plain line every ten seconds.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from immunax.runtime import pace
from immunax.runtime.escaped import escaped, taking_all
from immunax.runtime.leader import is_leader

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
        pace.move()
        self._done += count
        if values:
            self._values = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=count, rate=self._rate(), values=self._values)
        elif time.monotonic() - self._printed >= LINE_SECONDS and self._done < self._total:
            self._line(f"{span(self._left())} left")

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
            self._line(span(self._seconds()))


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


def cell_text(cell: object) -> str:
    """How a table shows a value, unescaped."""
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table to standard output, from process 0; see :func:`laid_out`."""
    _console(stderr=False).print(laid_out(title, columns, rows))


def laid_out(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table.

    Args:
      title: above the table.
      columns: the headings.
      rows: one cell a column; numbers are aligned right, floats shown to four digits, None as a dash.
    """
    shown = Table(title=_plain(title), title_justify="left")
    numeric = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        shown.add_column(_plain(name), justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_plain(cell_text(cell)) for cell in row))
    return shown


@contextmanager
def drawn_anew() -> Iterator[Callable[[RenderableType], None] | None]:
    """A place on standard output that is drawn again and again, for the length of the block.

    Yields:
      Draws it; None where there is no terminal.
    """
    console = _console(stderr=False)
    if not console.is_terminal:
        yield None
        return
    console.soft_wrap = False  # what is too long for a line would be cut
    with Live(console=console, auto_refresh=False) as live:
        yield lambda shown: live.update(shown, refresh=True)


def line(text: str) -> Text:
    """A line of such a place, escaped where it has to be."""
    return _plain(text)


def span(seconds: float) -> str:
    """A length of time, as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))

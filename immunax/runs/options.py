"""What a user asks of a set of runs, as words of a command line."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from immunax.runtime import mirror
from immunax.runtime.errors import UserError, check_choice
from immunax.runtime.word_command import sorted_out

TABLES = ("runs", "curves", "cells", "families", "budgets", "columns")
PLOTS = ("lines", "points", "bars", "matrix")
FORMATS = (".md", ".csv", ".parquet")
PICTURES = (".svg", ".png", ".pdf")
LOGARITHMIC = ("x", "y", "xy")
ABOUT = ("runs", "both")
"""What an interval of a mean is about: further runs on the same prompts, or further prompts too."""
WATCH = "--watch"
EVERYTHING = ("all",)
"""``select=`` of every column."""

_OUTPUTS = "outputs"
_WATCHED = ("every", "runs")
_LISTS = ("by", "columns", "metric", "select")

HELP = """\
python -m immunax.results [PATHS] [WORD=VALUE ...] [--watch]

Every run below some folders (outputs, where none is given) as one table.

  where=SQL         rows that count, as where="seed < 3 and defense = 'tar'"
  select=A,B        columns of the table of rows; select=all for every one
  metric=A,B        numbers: one a row with its own interval, or with by= or columns= their means
  by=A,B            one row for each value of these columns; without a metric, how many runs there are of each status
  columns=A         one column for each value of this one: a pivot
  about=WHAT        what intervals of means are about: runs (the default), or both, further runs and further prompts
  sort=A, sort=-A   rows in this order, the largest first with a minus
  limit=N           the first N rows
  table=NAME        rows are runs (the default), curves (lines of metrics.jsonl), columns (all names), or of certificates
                    cells (states), families (the most harm of each) or budgets (the most harm of so many attacks)
  plot=KIND         lines, points, bars or matrix, with x=, y= and hue=; log=x, y or xy for logarithmic axes
  out=FILE          .md, .csv or .parquet of a table, .svg, .png or .pdf of a plot
  --watch           what is running, done and failed, live; every=SECONDS says how often it looks, and runs=N that so many
                    will come, where no sweep of -m says it

A column is named by its whole name or the end of it; docs/results.md has the names."""


@dataclass(frozen=True)
class Options:
    """The words of one command line; see :data:`HELP`.

    Attributes:
      paths: folders of runs.
      watch: whether a live view is wanted.
      runs: how many will come, for that.
    """

    paths: tuple[Path, ...] = (Path(_OUTPUTS),)
    where: str | None = None
    select: tuple[str, ...] = ()
    metric: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sort: str | None = None
    limit: int | None = None
    table: str | None = None
    plot: str | None = None
    x: str | None = None
    y: str | None = None
    hue: str | None = None
    log: str = ""
    about: str = ABOUT[0]
    out: Path | None = None
    every: float = 2.0
    runs: int | None = None
    watch: bool = False


_WORDS = tuple(each.name for each in fields(Options) if each.name not in ("paths", "watch"))


def parse(words: Sequence[str]) -> Options:
    """The options of a command line.

    Args:
      words: as the user wrote them.

    Raises:
      UserError: one is unknown, is given twice, has a value that it does not take, or does not go with another.
    """
    given, others = sorted_out(words, _WORDS, _value, (WATCH,), "give it once, with commas between names")
    paths = [mirror.local(word) for word in others]
    options = replace(Options(), **given, **({"paths": tuple(paths)} if paths else {}))  # pyright: ignore[reportArgumentType]
    _check(options)
    return options


def _value(key: str, text: str) -> object:
    if key in _LISTS:
        names = next(csv.reader([text], skipinitialspace=True), [])  # a name with a comma stands in double quotes
        if not names or not all(names):
            raise UserError(f"{key}={text}: expected names of columns with commas between them.")
        return tuple(names)
    if key in ("limit", "runs"):
        if not text.isdecimal() or not int(text):
            raise UserError(f"{key}={text}: expected a number, 1 or more.")
        return int(text)
    if key == "every":
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0.1 <= seconds <= 86400:
            raise UserError(f"every={text}: expected a number of seconds, 0.1 or more.")
        return seconds
    for name, choices in (("table", TABLES), ("plot", PLOTS), ("log", LOGARITHMIC), ("about", ABOUT)):
        if key == name:
            check_choice(name, text, choices)
    if not text:
        raise UserError(f"{key}=: expected a value.")
    return mirror.local(text) if key == "out" else text


def _check(options: Options) -> None:
    grouped = bool(options.by or options.columns)
    unused = {
        "with --watch": (options.watch, _set(options, set(_WORDS) - set(_WATCHED))),
        "without --watch": (not options.watch, _set(options, _WATCHED)),
        "with plot=": (options.plot is not None, _set(options, ("by", "columns", "metric", "select", "sort", "limit"))),
        "without plot=": (options.plot is None, _set(options, ("x", "y", "hue", "log"))),
        "with select=all": (options.select == EVERYTHING, _set(options, ("metric",))),
        "with by= or columns=": (grouped, _set(options, ("select",))),
        "without means": (not grouped and options.plot is None, _set(options, ("about",))),
        "with table=columns": (options.table == "columns", _set(options, ("by", "columns", "metric", "plot"))),
    }
    for when, (holds, names) in unused.items():
        if holds and names:
            raise UserError(f"{names[0]}= means nothing {when}; leave one of them out.")
    if options.plot is not None and (options.x is None or options.y is None):
        raise UserError(f"plot={options.plot}: give x=COLUMN and y=COLUMN too.")
    if options.columns and len(options.metric) != 1:
        raise UserError("columns=: a pivot shows one number; give metric=COLUMN.")
    if options.out is not None:
        if options.out.is_dir():
            raise UserError(f"out={options.out}: is a folder; give the name of a file.")
        endings = PICTURES if options.plot is not None else FORMATS
        if options.out.suffix not in endings:
            raise UserError(f"out={options.out}: expected a name that ends in {', '.join(endings)}.")


def _set(options: Options, names: Iterable[str]) -> list[str]:
    return [name for name in _WORDS if name in names and getattr(options, name) != getattr(Options, name)]

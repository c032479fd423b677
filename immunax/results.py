"""``python -m immunax.results [PATHS] [WORD=VALUE ...]``: every run's configuration and results as one table, or as a figure.

Exit statuses: 0; 2 for a mistake in the command; 130 and 143 ended by Ctrl-C and SIGTERM. What of a stranger's run cannot be read
is one line on standard error, and no mistake.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from immunax.runs import faults
from immunax.runs.answer import Answer, answer, counted
from immunax.runs.find import runs_below
from immunax.runs.options import HELP, Options, parse
from immunax.runs.read import read_runs, told_faults
from immunax.runs.source import of_folders
from immunax.runs.tables import show, write
from immunax.runtime import console, stand_ins, word_command
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say

SHOWN = 100
"""Rows that are shown where no number of them is asked for."""

_PICTURE = Path("results.svg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers, and gives the exit status.

    Args:
      arguments: of the command line; the process's own by default.
    """
    return word_command.run(arguments, HELP, _read)


def _read(words: Sequence[str]) -> None:
    with stand_ins.of_a_reader():
        _do(parse(words))


def _do(options: Options) -> None:
    if options.watch:
        from immunax.runs.watch import watch  # Hydra with it, whose grammar sweeps are written in

        watch(options.paths, options.every, options.runs)
    else:
        _answer(options)


def _answer(options: Options) -> None:
    found = runs_below(options.paths)
    if not found.places:
        raise UserError(
            f"no run below {', '.join(map(str, options.paths))}: give a folder that immunax.train has written to."
        )
    runs = read_runs(found.places)
    faults.tell([*found.faults, *told_faults(runs)])
    on_screen = options.out is None and options.plot is None
    limited = replace(options, limit=SHOWN + 1) if on_screen and options.limit is None else options
    told = answer(limited, of_folders(runs))
    faults.tell(told.faults)
    if told.figure is not None:
        _draw(options, told)
    elif told.table is not None and options.out is not None:
        write(told.table, options.out)
        say(f"{counted(len(told.table.rows), 'row')} of {told.title}: {options.out}")
    elif told.table is not None:
        rows = told.table.rows if options.limit else told.table.rows[:SHOWN]
        show(replace(told.table, rows=rows), told.title)
        if len(rows) < len(told.table.rows):
            console.note(f"the first {SHOWN} rows; limit=N shows another number, out=FILE.csv writes them all")
    for line in told.notes:
        console.note(line)


def _draw(options: Options, told: Answer) -> None:
    from immunax.runs.plot import draw  # a second, where tables are many and figures few

    assert told.figure is not None
    assert options.plot is not None
    series, labels = told.figure
    path = options.out or _PICTURE
    draw(path, options.plot, series, labels, options.log)
    say(f"{counted(sum(len(each.points) for each in series), 'mean')} of {told.title}: {path}")


if __name__ == "__main__":
    sys.exit(main())

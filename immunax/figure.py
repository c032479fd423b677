"""``python -m immunax.figure NAME [scale=SCALE]``: an experiment's figure and tables from the runs that it has left.

Exit statuses: 0; 2 for a mistake in the command; 130 and 143 ended by Ctrl-C and SIGTERM.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from immunax.runs import faults
from immunax.runs.answer import answer, table_of
from immunax.runs.find import runs_below
from immunax.runs.panels import Panel, draw_panels
from immunax.runs.provenance import provenance
from immunax.runs.query import with_columns
from immunax.runs.read import read_runs, told_faults
from immunax.runs.record import keep, kept
from immunax.runs.series import Labels
from immunax.runs.source import Read, Source, of_folders
from immunax.runs.spec import FILE, Part, Spec, read_spec
from immunax.runs.tables import Table, as_markdown
from immunax.runtime import atomic, console, experiments, mirror, stand_ins, word_command
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.escaped import say

TABLES = "table.md"
PICTURES = ("figure.svg", "figure.png")
HELP = f"""\
python -m immunax.figure NAME [WORD=VALUE ...]

The figure and the tables of an experiment, from the runs of its sweeps: what runs of NAME-SCALE-* are in the folder of runs.

  scale=SCALE     of the sweeps: {experiments.USUAL} (the default), or another that the experiment has
  outputs=DIR     the folder of runs; outputs by default
  results=DIR     draws again from what an earlier figure has kept, without any runs
  out=DIR         where {", ".join(PICTURES)}, {TABLES} and what it rests on go; OUTPUTS/NAME-SCALE by default

NAME may be a file such as conf/experiment/NAME/{FILE}, which says what the panels and tables are (docs/figures.md)."""


@dataclass(frozen=True)
class Words:
    """The words of one command line; see :data:`HELP`."""

    name: str
    scale: str = experiments.USUAL
    outputs: str = "outputs"
    results: str | None = None
    out: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws, and gives the exit status.

    Args:
      arguments: of the command line; the process's own by default.
    """
    return word_command.run(arguments, HELP, _read)


def _read(words: Sequence[str]) -> None:
    with stand_ins.of_a_reader():
        _do(_parsed(words))


def _parsed(words: Sequence[str]) -> Words:
    names = [word for word in words if "=" not in word]
    known = ("scale", "outputs", "results", "out")
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key not in known:
            raise UserError(f"{key}: no such word.{nearest(key, known)} There is: {', '.join(known)}.")
        if equals and (key in given or not value):
            raise UserError(f"{word}: give each word once, with a value.")
        if equals:
            given[key] = value
    if len(names) != 1:
        raise UserError(f"name one experiment: {', '.join(_experiments())}.")
    return Words(names[0], **given)


def _experiments() -> list[str]:
    return sorted(path.parent.name for path in configuration_folder().glob(f"{experiments.GROUP}/*/{FILE}"))


def _spec_file(name: str, scale: str) -> Path:
    """Where a figure is described, of an experiment of the configuration or of one's own."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = _experiments()
    if name not in known:
        raise UserError(f"unknown experiment {name!r}.{nearest(name, known)} There is: {', '.join(known)}.")
    folder = configuration_folder() / experiments.GROUP / name
    own = folder / f"{Path(FILE).stem}-{scale}{Path(FILE).suffix}"  # where a scale has other judges or attacks
    return own if own.exists() else folder / FILE


def _do(words: Words) -> None:
    file = _spec_file(words.name, words.scale)
    spec, folder = read_spec(file), file.absolute().parent
    out = mirror.local(words.out or f"{words.outputs}/{folder.name}-{words.scale}")
    source = _made(kept(Path(words.results)) if words.results else _of_runs(words, folder), spec)
    panels = [_panel(part, source) for part in spec.panels]
    if panels:
        draw_panels([out / each for each in PICTURES], spec, panels)
    text = "\n".join([*(_table(part, source) for part in spec.tables), *_laws(panels), provenance(source.runs)])
    with atomic.refusals(out / TABLES), atomic.file(out / TABLES) as temp:
        temp.write_text(text, encoding="utf-8")
    if words.results is None:
        keep(out, source, sorted({table_of(part.options) for part in (*spec.panels, *spec.tables)} - {"runs"}))
    say(f"{len(source.runs.rows)} runs, {len(panels)} panels and {len(spec.tables)} tables: {out}")


def _of_runs(words: Words, folder: Path) -> Source:
    """The runs of an experiment's sweeps, by the folder of its configuration."""
    outputs, run = mirror.local(words.outputs), f"{folder.name}-{words.scale}"
    folders = sorted(path for path in outputs.glob(f"{run}-*") if path.is_dir())
    found = runs_below(folders) if folders else None
    if found is None or not found.places:
        sweeps = [each for each in experiments.COMMANDS if (folder / each).is_dir()]
        asked = f"-m +{experiments.GROUP}={folder.name} scale={words.scale}"
        lines = ", ".join(f"python -m immunax.{each} {asked}" for each in sweeps)
        raise UserError(f"{outputs}: has no runs of {run}-*; make them first{f': {lines}' if lines else ''}.")
    runs = read_runs(found.places)
    faults.tell([*found.faults, *told_faults(runs)])
    lacking = [run for run in runs if run.status != "done"]
    if lacking:
        console.note(f"{len(lacking)} of {len(runs)} runs are not done: {lacking[0].place.name} {lacking[0].status}")
    return of_folders(runs)


def _made(source: Source, spec: Spec) -> Source:
    """A source with the columns that the figure computes."""

    def further(name: str, read: Callable[[], Read]) -> Read:
        frame, lines = read()
        return with_columns(frame, spec.made.get(name, {})), lines

    read = {name: partial(further, name, each) for name, each in source.read.items()}
    return replace(source, runs=with_columns(source.runs, spec.made.get("runs", {})), read=read)


def _panel(part: Part, source: Source) -> Panel:
    told = answer(part.options, source)
    faults.tell(told.faults, part.title)
    for line in told.notes:
        console.note(f"{part.title}: {line}")
    assert told.figure is not None
    series, labels = told.figure
    named = Labels(part.x_label or labels.x, part.y_label or labels.y, labels.hue and (part.legend or labels.hue))
    return Panel(part, series, named)


def _table(part: Part, source: Source) -> str:
    told = answer(part.options, source)
    faults.tell(told.faults, part.title)
    assert told.table is not None
    notes = "".join(f"{line}.\n" for line in told.notes)
    return f"### {part.title}\n\n{as_markdown(told.table)}\n{notes}"


def _laws(panels: Sequence[Panel]) -> list[str]:
    """The power laws of all panels as tables."""
    found = []
    for panel in panels:
        rows = [[name or "", law.exponent, law.factor] for name, law in panel.fits]
        if rows:
            table = as_markdown(Table([panel.labels.hue or "", "exponent", "factor"], rows))
            found.append(f"### {panel.part.title}: power laws\n\n{table}\n")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""What a figure keeps of its runs, and can be drawn from again without them.

``runs.json`` has what all runs share once, and of each what sets it apart, so that a change of a record is read in its diff. The
lines that runs logged and the states that certificates measured are parquet, a row each with the name of its run.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from immunax.runs.flatten import Value
from immunax.runs.frame import Frame, Row
from immunax.runs.source import BELOW, LAST, Read, Source
from immunax.runs.tables import Table, text, write
from immunax.runtime import atomic
from immunax.runtime.errors import UserError

RUN = "run"
FILE = "runs.json"
_SHARED, _EACH = "all", "runs"
_DROPPED = (
    *("argv", "goodput.", "performance.", "tokens.", "config.distributed.", "failure", "failed"),
    *("taught_before", "written", "fall.spent."),
)
_RESULTS, _STAGES = "results.", ("before", "after")
_KEPT = ("goodput.wall", "goodput.runs", "performance.train.")


def keep(folder: Path, source: Source, kinds: Sequence[str]) -> list[Path]:
    """Writes the tables of a source.

    Args:
      folder: in which; made where it is not there.
      source: the tables.
      kinds: which beside the runs, of :data:`~immunax.runs.source.BELOW`.

    Returns:
      The files. Paths of the machine that made the runs are in none of them: what was a whole path is its last part.

    Raises:
      UserError: the disk refuses.
    """
    path = folder / FILE
    with atomic.refusals(path), atomic.file(path) as temp:
        temp.write_text(json.dumps(_runs(source.runs), indent=1) + "\n", encoding="utf-8")
    for kind in kinds:
        write(_table(source.table(kind)[0]), _file(folder, kind))
    return [path, *(_file(folder, kind) for kind in kinds)]


def kept(folder: Path) -> Source:
    """The tables that :func:`keep` wrote.

    Args:
      folder: that it wrote them to.

    Raises:
      UserError: there are none, or they cannot be read.
    """
    path = folder / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        runs = {str(own[RUN]): {**said[_SHARED], **own} for own in said[_EACH]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no record of runs; give a folder that immunax.figure has written to.") from error

    def below(kind: str) -> Read:
        found = _rows(_file(folder, kind)) if _file(folder, kind).exists() else []
        own = [{name: value for name, value in row.items() if value is not None} for row in found]
        return Frame([Row(row, runs[str(row[RUN])]) for row in own], BELOW[kind].what), []

    whole = Frame([Row(own) for own in runs.values()])
    return Source(whole, {LAST: lambda: (whole, []), **{kind: partial(below, kind) for kind in BELOW}})


def _file(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.parquet"


def _runs(frame: Frame) -> dict[str, Any]:
    names = [name for name in frame.names if name.startswith(_KEPT) or not name.startswith(_DROPPED)]
    rows = [
        {name: _plain(row.get(name)) for name in names if row.get(name) is not None and not _is_twice(row, name)}
        for row in frame.rows
    ]
    shared = {} if len(rows) < 2 else {name: value for name, value in rows[0].items() if _same(rows, name, value)}
    return {_SHARED: shared, _EACH: [{name: row[name] for name in row if name not in shared} for row in rows]}


def _is_twice(row: Row, name: str) -> bool:
    """Whether a result stands as that of the model that the run is about, too."""
    for stage in _STAGES:
        _, there, rest = name.partition(f".{stage}.")
        if there and name.startswith(_RESULTS):
            return row.get(f"{stage}.{rest}") == row.get(name)
    return False


def _same(rows: Sequence[Mapping[str, Any]], name: str, value: Any) -> bool:
    return name != RUN and all(name in row and row[name] == value and type(row[name]) is type(value) for row in rows)


def _plain(value: Value) -> Any:
    if isinstance(value, str) and value.startswith("/"):
        return PurePosixPath(value).name
    return value if isinstance(value, (str, bool, int, float)) else text(value)


def _table(frame: Frame) -> Table:
    """The columns that rows of runs have of their own."""
    names = [RUN, *dict.fromkeys(name for row in frame.rows for name in row.own if name != RUN)]
    columns = [frame.column(name).values for name in names]
    there = [place for place, values in enumerate(columns) if any(value is not None for value in values)]
    return Table([names[place] for place in there], list(zip(*(columns[place] for place in there), strict=True)))


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow  # and pandas with it
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]}).") from error

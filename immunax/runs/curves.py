"""What runs logged: lines of ``metrics.jsonl`` as rows, and each phase's last as columns of the run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from immunax.runs.flatten import Value, flat, named, plain
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run
from immunax.runtime import metrics
from immunax.runtime.errors import UserError, refused
from immunax.runtime.escaped import escaped
from immunax.runtime.untrusted.files import check_plain, open_plain

NAME = "metrics"
WHAT = "line"
PHASE, STEP = "phase", "step"
_BEHIND_PHASE = ', "step": '


def curves(runs: Sequence[Run]) -> tuple[Frame, list[str]]:
    """One row for every line that a run logged: ``phase``, ``step``, each value by its name, and the run's own columns.

    Args:
      runs: to read.

    Returns:
      The rows; one line for each file that cannot be read.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for run in runs:
        for line in _lines(run.place.folder, faults):
            own: dict[str, Value] = {PHASE: plain(line["phase"]), STEP: line["step"]}
            # What a run logs under a name of ours stands behind that of the part of the line that it is in.
            own |= {_own(named(name), run.values): value for name, value in _values(line)}
            rows.append(Row(own, run.values))
    return Frame(rows, WHAT), faults


def with_last(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Runs with the columns ``metrics.PHASE.NAME``: what the last line of each phase says.

    Args:
      runs: to read.

    Returns:
      The runs; one line for each file that cannot be read.
    """
    faults: list[str] = []
    return [run._replace(values={**run.values, **_last(run.place.folder, faults)}) for run in runs], faults


def newest(folder: Path) -> tuple[str, int, dict[str, Value]] | None:
    """The phase, the step and the values of the last whole line that a run logged, read from the end; None where there is none.

    Args:
      folder: of the run.
    """
    try:
        with open_plain(folder / metrics.FILE) as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = file.read(_TAIL).decode(errors="replace").splitlines()
    except (UserError, OSError):
        return None
    for line in reversed(lines):
        found = metrics.record(line)
        if found is not None:
            return escaped(str(found["phase"])), found["step"], dict(_values(found))
    return None


_TAIL = 1 << 16
"""Bytes at the end of a file, which hold a line of any run of ours many times over."""


def _last(folder: Path, faults: list[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    seen = set()
    for line in reversed(_text(folder, faults).splitlines()):
        # Most lines are of a phase whose last is known, which their beginning says.
        head = line.partition(_BEHIND_PHASE)[0]
        record = None if head in seen else metrics.record(line)
        if record is not None:
            seen.add(head)
            named = dict(
                pair for name, value in _values(record) for pair in flat(value, f"{NAME}.{record['phase']}.{name}")
            )
            found = {**named, **found}
    return found


def _own(name: str, run: Mapping[str, Value]) -> str:
    return f"values.{name}" if name in (PHASE, STEP) or name in run else name


def _values(line: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    values = line["values"]
    return ((name, plain(value)) for name, value in values.items()) if isinstance(values, dict) else iter(())


def _lines(folder: Path, faults: list[str]) -> list[dict[str, Any]]:
    return _read(folder, metrics.read, faults) or []


def _text(folder: Path, faults: list[str]) -> str:
    return _read(folder, lambda path: path.read_text(errors="replace"), faults) or ""


def _read(folder: Path, read: Callable[[Path], Any], faults: list[str]) -> Any:
    path = folder / metrics.FILE
    if not path.exists():
        return None
    try:
        check_plain(path)
        return read(path)
    except (UserError, OSError) as error:
        faults.append(str(refused(error) if isinstance(error, OSError) else error))
        return None

"""Which columns a table of rows shows, and what it calls them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from immunax.conditions.statistics import Estimate
from immunax.conditions.verdict import CONDITIONS
from immunax.runs import cells
from immunax.runs.frame import COLUMN, Frame, short
from immunax.runs.options import EVERYTHING, Options
from immunax.runs.query import Condition, Query
from immunax.runs.tables import Table
from immunax.runs.verdicts import NAME as CERTIFICATE

_HEADLINE = 4
"""Results that a table shows which was asked for none."""
_AFTER = "after."

Headed = Mapping[str, str]
"""Columns, with what a table calls each."""


def resolved(frame: Frame, names: Sequence[str]) -> dict[str, str]:
    """Columns that a user names, which are called as he does.

    Args:
      frame: that has them.
      names: as written.

    Raises:
      UnknownColumnError: one is no column's.
    """
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(frame.resolve(name), name)
    return found


def listed(options: Options, query: Query, condition: Condition, whole: Frame) -> Table:
    """One row for each row of a frame.

    Args:
      options: ``select``, ``metric``, ``sort``, ``limit``, and where the table goes.
      query: of the frame.
      condition: which rows.
      whole: the frame of the runs that the rows are of.

    Raises:
      UserError: a name is no column's.
    """
    frame = query.frame
    sort = None if options.sort is None else (frame.resolve(options.sort.removeprefix("-")), options.sort[0] == "-")
    plain, measured = _columns(options, frame, whole)
    ends = {name: frame.ends(name) for name in measured}
    wanted = [*plain, *(part for name in measured for part in (name, *ends[name]))]
    rows = []
    for found in query.rows(wanted, condition, sort, options.limit):
        row, rest = list(found[: len(plain)]), iter(found[len(plain) :])
        for name in measured:
            value, parts = next(rest), [next(rest) for _ in ends[name]]
            row.append(_estimate(value, parts) if parts and value is not None else value)
        rows.append(row)
    return Table([*plain.values(), *measured.values()], rows)


def _columns(options: Options, frame: Frame, whole: Frame) -> tuple[Headed, Headed]:
    """Columns that are shown as they are, and those that are shown with their intervals."""
    measured = resolved(frame, options.metric)
    for_programs = options.out is not None and options.out.suffix != ".md" and not measured
    if options.select == EVERYTHING or (for_programs and not options.select) or frame.what == COLUMN:
        return {name: name for name in frame.names}, {}
    if options.select:
        return resolved(frame, options.select), measured
    if frame.what != whole.what:
        own = dict.fromkeys(name for row in frame.rows for name in row.own)
        if frame.what == cells.WHAT:
            judged = [name for name in own if name.startswith(cells.SHOWN) and frame.ends(name)]
            return _headed([*_telling(frame, whole), *cells.SETTINGS]), measured or _headed(judged)
        return _headed([*_telling(frame, whole), *own]), measured
    status = ["status"] if any(row.get("status") != "done" for row in frame.rows) else []
    return _headed([*_telling(frame, whole), *status]), measured or _headed(_headline(frame))


def _telling(frame: Frame, whole: Frame) -> list[str]:
    """What tells runs apart: the configuration where it does, else their names too."""
    apart = whole.telling_apart()
    told = Counter(tuple(row.get(name) for name in apart) for row in whole.rows)
    return apart if apart and max(told.values()) == 1 else ["run", *apart]


def _headline(frame: Frame) -> list[str]:
    """The first results of the attacked models, and what certificates say of each condition."""
    known = {name for row in frame.rows for name, value in row.own.items() if value is not None}
    after = [name for name in frame.names if name.startswith(_AFTER) and frame.ends(name) and name in known]
    said = [f"{CERTIFICATE}.{condition}" for condition in CONDITIONS]
    return [*after[:_HEADLINE], *(name for name in said if name in frame.names)]


def _headed(names: Sequence[str]) -> dict[str, str]:
    """Columns, called by their last word where that tells them from the others; results keep theirs before it."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return {
        name: short(name) if name.startswith(_AFTER) or last[name.rpartition(".")[2]] > 1 else name.rpartition(".")[2]
        for name in dict.fromkeys(names)
    }


def _estimate(value: Any, ends: Sequence[Any]) -> Estimate:
    return Estimate(*(float("nan") if each is None else float(each) for each in (value, *ends)))

"""Means over runs: one row a group, or a pivot of two sets of columns.

A mean has Student's interval over the runs of its group; lines and cells of one run are not independent, and are made one number
first. One run, or runs that agree to the digit, as 0 of 40 answers each, have no spread to make an interval of: it is then the
widest of the runs' own, where they left one. Where it has to be about further prompts too, the runs' own are part of every one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from immunax.conditions.statistics import Estimate, mean_of_runs, mean_of_runs_and_prompts
from immunax.runs.frame import Frame
from immunax.runs.listing import Headed
from immunax.runs.options import ABOUT
from immunax.runs.query import Condition, Query
from immunax.runs.status import ORDER
from immunax.runs.tables import Mean, Table, text
from immunax.runtime.errors import UserError, nearest

RUN = "run"
RUNS, BOTH = ABOUT
MOST_COLUMNS = 100
"""Of a pivot."""


def check_number(frame: Frame, name: str, option: str) -> None:
    """Refuses a column that has no mean.

    Raises:
      UserError: it holds texts or times.
    """
    column = frame.column(name)
    if not column.has_mean:
        raise UserError(
            f"{option}={name}: holds {_KINDS[column.type]}, and no numbers; give another column, or by={name}."
        )


_KINDS = {"VARCHAR": "text", "TIMESTAMP": "times"}


def check_about(frame: Frame, name: str, about: str) -> None:
    """Refuses an interval about prompts of what has none of its own.

    Raises:
      UserError: ``about`` is ``both``, and the column has no ends beside it.
    """
    if about == BOTH and not frame.ends(name):
        raise UserError(f"about={BOTH}: {name} has no intervals of its own; leave it out, or choose another column.")


def means(
    query: Query, keys: Sequence[str], metric: str, condition: Condition, about: str = RUNS
) -> dict[tuple[Any, ...], Mean]:
    """The mean of a column in each group.

    Args:
      query: of a frame.
      keys: the columns that make groups.
      metric: the column, of numbers.
      condition: which rows.
      about: what the interval is about, :data:`RUNS` or :data:`BOTH`.
    """
    ends = query.frame.ends(metric)
    found = {}
    for key, rows in query.groups(keys, (RUN, metric, *ends), condition):
        known = [row for row in rows if row[1] is not None]
        values = _by_run(known, 1)
        if about == BOTH and ends:
            estimate = mean_of_runs_and_prompts(values, _by_run(known, 2), _by_run(known, 3))
        else:
            estimate = mean_of_runs(values)
            if ends and len({row[1] for row in known}) == 1:
                lows, highs = ([row[place] for row in known if row[place] is not None] for place in (2, 3))
                estimate = Estimate(estimate.value, min(lows, default=np.nan), max(highs, default=np.nan))
        found[key] = Mean(estimate, len(values), len({row[0] for row in rows}))
    return found


def _by_run(rows: Sequence[tuple[Any, ...]], place: int) -> np.ndarray:
    """One number a run, of one column; NaN where a row has none."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row[0], []).append(np.nan if row[place] is None else float(row[place]))
    return np.array([_mean(each) for each in values.values()])


def _mean(values: Sequence[float]) -> float:
    """Of the lines or cells of one run; a run has one row mostly."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values[0] if len(values) == 1 else float(np.mean(values))


def grouped(query: Query, keys: Headed, metrics: Headed, condition: Condition, about: str = RUNS) -> Table:
    """One row a group: its keys, its runs, and the mean of each metric; without metrics, its runs by status.

    Args:
      query: of a frame.
      keys: the columns that make groups.
      metrics: columns of numbers.
      condition: which rows.
      about: as for :func:`means`.
    """
    if not metrics:
        what, groups = f"{query.frame.what}s", query.groups(list(keys), ("status",), condition)
        counts = {key: Counter(row[0] for row in rows) for key, rows in groups}
        there = [status for status in ORDER if any(count[status] for count in counts.values())]
        rows = [[*key, count.total(), *(count[status] for status in there)] for key, count in counts.items()]
        return Table([*keys.values(), what, *there], rows)
    found = [means(query, list(keys), metric, condition, about) for metric in metrics]
    rows = [[*key, mean.runs, *(each[key] for each in found)] for key, mean in found[0].items()]
    return Table([*keys.values(), "runs", *metrics.values()], rows)


def pivot(query: Query, keys: Headed, across: Headed, metric: str, condition: Condition, about: str = RUNS) -> Table:
    """One row for each value of some columns, one column for each of others.

    Args:
      query: of a frame.
      keys: the columns that make rows.
      across: those that make columns.
      metric: the column whose means are shown.
      condition: which rows.
      about: as for :func:`means`.

    Raises:
      UserError: there would be more columns than anybody reads.
    """
    found = means(query, [*keys, *across], metric, condition, about)
    tops, sides = ([key for key, _ in query.groups(list(names), ("run",), condition)] for names in (across, keys))
    if len(tops) > MOST_COLUMNS:
        raise UserError(
            f"columns={','.join(across.values())}: {len(tops)} values, more than {MOST_COLUMNS}; put it into by=."
        )
    headings = [
        ", ".join(f"{name}={text(value)}" for name, value in zip(across.values(), top, strict=True)) for top in tops
    ]
    if not tops:
        return Table([*keys.values(), *across.values()], [])
    rows = [[*side, *(found.get((*side, *top)) for top in tops)] for side in sides]
    return Table([*keys.values(), *headings], rows)


def in_order(table: Table, sort: str | None, limit: int | None) -> Table:
    """A table of groups, sorted and cut.

    Args:
      table: of groups.
      sort: a heading, after a ``-`` the largest first; None keeps the order.
      limit: the most rows; None for all.

    Raises:
      UserError: there is no such heading.
    """
    rows = list(table.rows)
    if sort is not None:
        name = sort.removeprefix("-")
        if name not in table.headings:
            raise UserError(f"sort={sort}: expected one of {', '.join(table.headings)}.{nearest(name, table.headings)}")
        place = list(table.headings).index(name)
        # What has no value comes last in either order.
        known = [row for row in rows if _sorted_by(row[place]) is not None]
        others = [row for row in rows if _sorted_by(row[place]) is None]
        rows = [*sorted(known, key=lambda row: _sorted_by(row[place]), reverse=sort[0] == "-"), *others]
    return Table(table.headings, rows[:limit])


def _sorted_by(cell: Any) -> Any:
    if isinstance(cell, Mean):
        return None if np.isnan(cell.estimate.value) else cell.estimate.value
    return cell


def lacking(query: Query, metric: str, condition: Condition) -> list[str]:
    """In a line how many runs have no value, by their status; none where all have one."""
    rows = query.rows(("status", metric), condition)
    without = Counter(row[0] for row in rows if row[1] is None)
    if not without:
        return []
    told = ", ".join(f"{without[status]} {status}" for status in ORDER if without[status])
    return [f"{without.total()} of {len(rows)} {query.frame.what}s have no {metric}: {told}"]

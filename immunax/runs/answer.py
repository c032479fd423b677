"""From what a user asks to a table or a figure."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from immunax.runs import curves
from immunax.runs.aggregate import BOTH, RUNS, check_about, check_number, grouped, in_order, lacking, means, pivot
from immunax.runs.frame import Frame, UnknownColumnError, columns_of, short
from immunax.runs.listing import listed, resolved
from immunax.runs.options import Options
from immunax.runs.query import EVERY, Query
from immunax.runs.series import Labels, Series
from immunax.runs.source import BELOW, Source
from immunax.runs.status import ORDER
from immunax.runs.tables import Mean, Table, text
from immunax.runtime.errors import UserError

_INTERVALS = {
    RUNS: "95% intervals of Student's t; a single run, and runs that agree, have their own",
    BOTH: "95% intervals for further runs and further prompts",
}
_FAILURES = 5
"""Lines about runs that failed."""


class Answer(NamedTuple):
    """What was asked for.

    Attributes:
      table: rows; None for a figure.
      figure: the series and the labels of one; None for a table.
      title: in a few words, what it is of.
      notes: lines that its reader should know.
      faults: one line for each file that could not be read.
    """

    table: Table | None
    figure: tuple[list[Series], Labels] | None
    title: str
    notes: list[str]
    faults: Sequence[str] = ()


def answer(options: Options, source: Source) -> Answer:
    """Computes an answer.

    Args:
      options: what is asked.
      source: of what.

    Raises:
      UserError: a name is no column's, a condition is none, or there is nothing to draw.
    """
    whole = source.runs
    kind = table_of(options)
    frame, faults = source.table(kind) if kind in BELOW else (whole, [])
    if not frame.rows:
        lacks = "has logged anything" if kind == "curves" else "has the tables of a certificate"
        raise UserError(
            f"table={kind}: none of {counted(len(whole.rows), 'run')} {lacks}.{''.join(f' {line}' for line in faults[:1])}"
        )
    if kind == "columns":
        whole, faults = source.last()
        frame = columns_of(whole)
    try:
        found = _Question(options, whole, frame).answer()
    except UnknownColumnError:
        if kind != "runs":
            raise
        # What was logged last is read where nothing else has the name: a thousand runs log a million lines.
        whole, faults = source.last()
        found = _Question(options, whole, whole).answer()
    return found._replace(faults=faults)


def table_of(options: Options) -> str:
    """Which table a question is of: a plot by steps is of what was logged, where nothing else is said."""
    return options.table or ("curves" if options.plot and options.x == curves.STEP else "runs")


class _Question:
    def __init__(self, options: Options, whole: Frame, frame: Frame) -> None:
        self._options, self._whole, self._frame = options, whole, frame
        self._query = Query(frame)
        self._condition = EVERY if options.where is None else self._query.where(options.where)

    def answer(self) -> Answer:
        if self._options.plot is not None:
            return self._figure()
        if self._options.by or self._options.columns:
            return self._groups()
        table = listed(self._options, self._query, self._condition, self._whole)
        return Answer(table, None, self._counted(), self._failures())

    def _groups(self) -> Answer:
        options, frame = self._options, self._frame
        keys, across, metrics = (resolved(frame, each) for each in (options.by, options.columns, options.metric))
        for name in metrics:
            check_number(frame, name, "metric")
            check_about(frame, name, options.about)
            self._check_phase(name, [*keys, *across])
        if across:
            table = pivot(self._query, keys, across, next(iter(metrics)), self._condition, options.about)
        else:
            table = grouped(self._query, keys, metrics, self._condition, options.about)
        table = in_order(table, options.sort, options.limit)
        title = f"{', '.join(metrics.values())} of {self._counted()}" if metrics else self._counted()
        return Answer(table, None, title, self._about_means([*keys, *across], list(metrics)))

    def _figure(self) -> Answer:
        options, frame = self._options, self._frame
        assert options.x is not None
        assert options.y is not None
        x, y = frame.resolve(options.x), frame.resolve(options.y)
        check_number(frame, y, "y")
        check_about(frame, y, options.about)
        hue = None if options.hue is None else frame.resolve(options.hue)
        if hue is None and len(self._phases(y)) > 1:
            hue = curves.PHASE
        keys = [x] if hue is None else [hue, x]
        self._check_phase(y, keys)
        series: dict[tuple[Any, ...], dict[Any, Mean]] = {}
        notes = self._about_means(keys, [y])
        for (*of, at), mean in means(self._query, keys, y, self._condition, options.about).items():
            if at is None or not mean.count:
                continue
            if math.isfinite(mean.estimate.value):
                series.setdefault(tuple(of), {})[at] = mean
            else:
                notes.append(f"at {x}={text(at)} the mean is not finite, and is not drawn")
        if not series:
            raise UserError(f"nothing to draw: {self._counted()}, and none with both {x} and {y}.")
        drawn = [Series(text(of[0]) if of else None, points) for of, points in series.items()]
        labels = Labels(options.x, options.y, hue and (options.hue or hue))
        counts = {mean.count for each in drawn for mean in each.points.values()}
        if len(counts) > 1:
            notes.append(f"there are means of {min(counts)} runs, and of {max(counts)}")
        return Answer(None, (drawn, labels), self._counted(), notes)

    def _counted(self) -> str:
        """How many rows count, and of runs what has become of them."""
        frame = self._frame
        if not frame.rows:
            return counted(0, frame.what)
        told = "status" if "status" in frame.names else next(iter(frame.names))
        counts = self._query.counts(told, self._condition)
        total = sum(counts.values())
        part = total if self._condition is EVERY else f"{total} of {len(frame.rows)}"
        title = counted(len(frame.rows), frame.what, part)
        if frame.what != self._whole.what or set(counts) <= {"done"}:
            return title
        return f"{title}: {', '.join(f'{counts[each]} {each}' for each in ORDER if each in counts)}"

    def _failures(self) -> list[str]:
        if self._frame.what != self._whole.what or "failure" not in self._frame.names or self._options.out is not None:
            return []
        rows = self._query.rows(("run", "status", "failure"), self._condition)
        told = [f"{run} {status}: {line}" for run, status, line in rows if status in ("failed", "diverged")]
        more = [f"and {len(told) - _FAILURES} more; select=run,failure shows all"] if len(told) > _FAILURES else []
        return [*told[:_FAILURES], *more]

    def _about_means(self, keys: Sequence[str], metrics: Sequence[str]) -> list[str]:
        if not metrics:
            return []
        lines = []
        if self._frame.what == self._whole.what:
            lines += [line for name in metrics for line in lacking(self._query, name, self._condition)]
        # Of the rows of one run those that tell them apart come first.
        of_rows = next((each.apart for each in BELOW.values() if each.what == self._frame.what), ())
        candidates = [name for name in (*of_rows, *self._whole.telling_apart()) if name in self._frame.names]
        over = self._query.varying(
            keys, [name for name in dict.fromkeys(candidates) if name not in keys], self._condition
        )
        if over:
            within = ", of each run first" if of_rows else ""
            lines.append(
                f"means are over {', '.join(short(name) for name in over)}{within}, with {_INTERVALS[self._options.about]}"
            )
        return lines

    def _phases(self, name: str) -> list[Any]:
        if self._frame.what != curves.WHAT or not self._frame.rows:
            return []
        return list(self._query.counts(curves.PHASE, self._condition, known=name))

    def _check_phase(self, name: str, keys: Sequence[str]) -> None:
        """Steps of different phases have nothing to do with one another."""
        phases = self._phases(name)
        if len(phases) > 1 and curves.PHASE not in keys:
            raise UserError(
                f"{name} is logged in {len(phases)} phases ({', '.join(map(text, phases[:4]))}): choose one, as "
                f"where=\"phase = '{phases[0]}'\", or give hue=phase or by=phase."
            )


def counted(number: int, what: str, told: object = None) -> str:
    """A number with its noun.

    Args:
      number: of things.
      what: the noun for one.
      told: what stands in the place of the number.
    """
    return f"{number if told is None else told} {what}{'' if number == 1 else 's'}"

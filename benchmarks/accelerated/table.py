"""A report as tables."""

from collections.abc import Iterator
from statistics import median

from accelerated.catalogue import CASES, COMPILED, EAGER, IMMUNAX, PEAK, Case
from accelerated.goals import GOALS
from accelerated.record import DONE, Report, Row

MEASURED = (
    "case",
    "side",
    "rate",
    "times eager",
    "times torch.compile",
    "TFLOP/s",
    "of the peak",
    "GiB",
    "compile, s",
    "",
)
VIEWED = ("case", "side", "TFLOP", "GiB moved", "peak, GiB", "arguments", "temporaries", "custom calls")
REACHED = ("goal on one H100 or H200", "bound", "found", "")
"""Columns of the tables; the first two and the last are words."""


def lines(report: Report) -> Iterator[str]:
    """What it was measured on, a row a side of each case, and the goals; of a view what the compiler made of each."""
    if report.view:
        yield f"Compiled for one {report.device} and not run; {_versions(report)}."
    else:
        tiny = ": tiny sizes, whose times say nothing" if report.tiny else ""
        peak = "not measured" if report.peak is None else f"{report.peak / 1e12:,.4g} TFLOP/s"
        yield f"{report.device}{tiny}; {_versions(report)}. Matrix peak of the same run: {peak}."
    yield ""
    yield from _head(VIEWED if report.view else MEASURED)
    for title, case, side in _wanted():
        for row in report.rows:
            if (row.case, row.side) != (PEAK if case is None else case.name, side):
                continue
            if row.status != DONE:
                blank = len(VIEWED if report.view else MEASURED) - 3
                yield _line(title, row.side, *[""] * blank, f"{row.status}: {row.reason}")
            elif case is not None:
                yield _line(title, row.side, *(_viewed(row) if report.view else _measured(report, case, row)))
    if not report.view:
        yield ""
        yield from _goals(report)


def _wanted() -> Iterator[tuple[str, Case | None, str]]:
    """Titles, cases and sides in the order of the table, the peak last."""
    yield from ((case.title, case, side) for case in CASES for side in case.sides)
    yield PEAK, None, IMMUNAX


def _versions(report: Report) -> str:
    found = [each for facts in report.facts.values() for each in facts.get("versions", {}).items()]
    return ", ".join(f"{name} {version}" for name, version in found) or "versions unknown"


def _head(names: tuple[str, ...]) -> Iterator[str]:
    yield _line(*names)
    yield _line("---", "---", *["---:"] * (len(names) - 3), "---")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _measured(report: Report, case: Case, row: Row) -> Iterator[str]:
    flops, peak = _flops_per_s(report, case, row), report.peak
    yield rated(case.unit, row)
    for side in (EAGER, COMPILED):
        other = report.row(row.case, side)
        yield "" if other is None else f"{row.rate / other.rate:.2f}"
    yield "" if flops is None else f"{flops / 1e12:.3g}"
    yield "" if flops is None or peak is None else f"{flops / peak:.0%}"
    yield "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.1f}"
    yield "" if row.compile_seconds is None else f"{row.compile_seconds:.0f}"
    yield ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.details.items()
    )


def rated(unit: str, row: Row) -> str:
    """The rate of a row in the words of its case."""
    if unit == "attacks":
        return f"{3600 * row.rate:,.0f} attacks an hour"
    if unit == "calls":
        return f"{1e3 * median(row.seconds) / row.units:.3g} ms"
    return f"{row.rate:,.0f} {unit}/s" if row.rate >= 100 else f"{row.rate:.3g} {unit}/s"


def _flops_per_s(report: Report, case: Case, row: Row) -> float | None:
    """A row's own, or at its rate what was counted for a unit of its case; but for attacks, whose first steps immunax shares."""
    if row.flops is not None or case.unit == "attacks":
        return row.flops_per_s
    counted = (each for each in report.rows if each.case == case.name and each.measured and each.flops is not None)
    return next((each.flops / each.units * row.rate for each in counted if each.flops is not None), None)


def _viewed(row: Row) -> Iterator[str]:
    yield f"{(row.flops or 0) / 1e12:.3g}"
    for size in (row.details["moved"], row.peak_bytes or 0, row.details["arguments"], row.details["temporaries"]):
        yield f"{size / 2**30:.3g}"
    yield ", ".join(f"{count:,} × {name}" for name, count in sorted(row.details["calls"].items()))


def _goals(report: Report) -> Iterator[str]:
    yield from _head(REACHED)
    for goal in GOALS:
        found, bound = goal.found(report), f"{'at least' if goal.at_least else 'at most'} {goal.bound:{goal.shown}}"
        yield _line(goal.text, bound, "" if found is None else f"{found:{goal.shown}}", goal.verdict(report))

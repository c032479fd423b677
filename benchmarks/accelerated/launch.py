"""Runs each side of each case in a process of its own, with a limit, so that none takes the others with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerated.catalogue import ATTENTIONS, IMMUNAX
from accelerated.record import FAILED, SKIPPED, STOPPED, UNTRIED, Report, Row

BENCHMARKS = Path(__file__).resolve().parent.parent
MEASURE, TORCH, VIEW = (BENCHMARKS / "accelerated" / f"{name}.py" for name in ("measure", "torch_cases", "view"))
_REASON = 240  # characters of one


class Limits(NamedTuple):
    """How long anything may take.

    Attributes:
      each: seconds of one process.
      end: no process runs beyond it, by :func:`time.monotonic`; None for no end.
    """

    each: float
    end: float | None = None

    def left(self) -> float:
        """Seconds that a process may take from now on; none are left where it is not above 0."""
        return self.each if self.end is None else min(self.each, self.end - time.monotonic())


Command = Callable[[str, str, Path], Sequence[str] | None]
"""Of a case, a side, and the file that its figures go to; None where that side has no Python to run it."""


def commands(tiny: bool, torch: str | None, ours: Path = MEASURE) -> Command:
    """The processes of a run.

    Args:
      tiny: whether cases have their tiny sizes.
      torch: a Python with torch, transformers and peft, or None.
      ours: the program of immunax's sides.
    """

    def command(case: str, side: str, to: Path) -> Sequence[str] | None:
        here = side.startswith(IMMUNAX)
        python = sys.executable if here else torch
        if python is None:
            return None
        return [python, str(ours if here else TORCH), case, side, str(to), *(["--tiny"] if tiny else [])]

    return command


def run(
    report: Report,
    wanted: Iterable[tuple[str, str]],
    command: Command,
    limits: Limits,
    say: Callable[[str], None],
    keep: Callable[[Report], None],
) -> Report:
    """Measures what a report does not have yet.

    Args:
      report: to go on from.
      wanted: cases and their sides, in order.
      command: of each.
      limits: of time.
      say: told of each row, before and after.
      keep: given the report after each row.
    """
    known = {(row.case, row.side) for row in report.rows}
    for name, side in wanted:
        if (name, side) in known:
            continue
        needed, here = ATTENTIONS.get(side), report.facts.get("immunax", {}).get("platform")
        facts = None
        if needed and here and needed != here:
            row = Row(name, side, SKIPPED, f"needs a {needed.upper()}, and this is a {here.upper()}")
        elif limits.left() <= 0:
            row = Row(name, side, UNTRIED, "the minutes were spent")
        else:
            say(f"{name}, {side} ...")
            row, facts = measured(name, side, command, limits)
        say(f"{name}, {side}: {row.status}{f': {row.reason}' if row.reason else ''}")
        report = report.with_row(row, facts)
        keep(report)
    return report


def measured(case: str, side: str, command: Command, limits: Limits) -> tuple[Row, dict[str, Any] | None]:
    """One row, and what its process said of the device it ran on."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "row.json"
        line = command(case, side, to)
        if line is None:
            return Row(case, side, SKIPPED, "no Python with torch was given: --torch PYTHON"), None
        begin = time.monotonic()
        code, said = _bounded(line, limits.left())
        wall = time.monotonic() - begin
        if code is None:
            return Row(case, side, STOPPED, f"after {wall:.0f} s", wall_seconds=wall), None
        if not to.is_file():
            return Row(case, side, FAILED, _last_words(code, said), wall_seconds=wall), None
        found = json.loads(to.read_text())
    facts = found.pop("facts", None)
    found["seconds"] = tuple(found.get("seconds", ()))
    found["reason"] = " ".join(found.get("reason", "").split())[:_REASON]
    return Row(case, side, **found, wall_seconds=wall), facts


def _bounded(line: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """The exit status of a process and what it wrote on standard error; no status where it had to be stopped."""
    paths = [str(BENCHMARKS.parent), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        # A group of its own: what it has started, such as compilers, ends with it.
        process = subprocess.Popen(
            line, stdout=errors, stderr=errors, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(timeout=max(seconds, 0.0))
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
        errors.seek(0)
        return code, errors.read()


def _last_words(code: int, said: str) -> str:
    words = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "without a word")
    how = f"ended by signal {-code}" if code < 0 else f"exit status {code}"
    return f"{how}: {words}"[:_REASON]

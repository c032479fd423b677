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
from typing import IO, Any, NamedTuple

from accelerated.catalogue import IMMUNAX
from accelerated.record import FAILED, SKIPPED, STOPPED, UNTRIED, Report, Row

BENCHMARKS = Path(__file__).resolve().parent.parent
MEASURE, TORCH, VIEW = (BENCHMARKS / "accelerated" / f"{name}.py" for name in ("measure", "torch_cases", "view"))
_REASON = 240  # characters of one
_LOOK = 0.02  # seconds between two looks at what runs


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
    at_once: int = 1,
) -> Report:
    """Measures what a report does not have yet.

    Args:
      report: to go on from.
      wanted: cases and their sides, in order.
      command: of each.
      limits: of time.
      say: told of each row, before and after.
      keep: given the report after each row.
      at_once: processes that run together; more than one where nothing is to be learned of their times.
    """
    running: list[Running] = []
    known = {(row.case, row.side) for row in report.rows}
    queue = [each for each in wanted if each not in known]
    with tempfile.TemporaryDirectory() as folder:
        try:
            while queue or running:
                ended: list[tuple[Row, Any]] = []
                while queue and len(running) < at_once:
                    begun = _begun(*queue.pop(0), Path(folder), command, limits, say)
                    if isinstance(begun, Running):
                        running.append(begun)
                    else:
                        ended.append((begun, None))
                ended += [found for each in running if (found := each.ended()) is not None]
                running = [each for each in running if each.process.returncode is None]
                for row, facts in ended:
                    say(f"{row.case}, {row.side}: {row.status}{f': {row.reason}' if row.reason else ''}")
                    report = report.with_row(row, facts)
                    keep(report)
                time.sleep(_LOOK)
        finally:
            for each in running:
                each.stop()
    return report


class Running:
    """A process that measures.

    Args:
      case, side: what.
      line: its command.
      to: the file that it is to write.
      seconds: that it may take.
    """

    def __init__(self, case: str, side: str, line: Sequence[str], to: Path, seconds: float):
        self.case, self.side, self.to = case, side, to
        self.begin, self.seconds = time.monotonic(), seconds
        self.errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (it lives as long as the process)
        paths = [str(BENCHMARKS.parent), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
        # A group of its own: what it has started, such as compilers, is stopped with it.
        self.process = subprocess.Popen(
            line,
            stdout=self.errors,
            stderr=self.errors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )

    def ended(self) -> tuple[Row, dict[str, Any] | None] | None:
        """Its row and what it said of its device, once it has ended or had to be stopped; None before."""
        wall = time.monotonic() - self.begin
        if self.process.poll() is None:
            if wall < self.seconds:
                return None
            self.stop()
            return Row(self.case, self.side, STOPPED, f"after {wall:.0f} s", wall_seconds=wall), None
        if not self.to.is_file():
            return Row(self.case, self.side, FAILED, self._last_words(), wall_seconds=wall), None
        found = json.loads(self.to.read_text())
        facts = found.pop("facts", None)
        found["seconds"] = tuple(found.get("seconds", ()))
        found["reason"] = " ".join(found.get("reason", "").split())[:_REASON]
        return Row(self.case, self.side, **found, wall_seconds=wall), facts

    def stop(self) -> None:
        """Ends it and whatever it has started, where it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _last_words(self) -> str:
        self.errors.seek(0)
        said = self.errors.read().splitlines()
        words = next((line.strip() for line in reversed(said) if line.strip()), "without a word")
        code = self.process.returncode
        how = f"ended by signal {-code}" if code < 0 else f"exit status {code}"
        return f"{how}: {words}"[:_REASON]


def _begun(
    case: str, side: str, folder: Path, command: Command, limits: Limits, say: Callable[[str], None]
) -> Running | Row:
    """A process on its way, or the row that says why there is none."""
    if limits.left() <= 0:
        return Row(case, side, UNTRIED, "the minutes were spent")
    to = folder / f"{case}, {side}.json"
    line = command(case, side, to)
    if line is None:
        return Row(case, side, SKIPPED, "no Python with torch was given: --torch PYTHON")
    say(f"{case}, {side} ...")
    return Running(case, side, line, to, limits.left())

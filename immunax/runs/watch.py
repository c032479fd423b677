"""A live view of runs: what is running, done and failed, how fast, and how long the rest takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from immunax.runs.find import SWEEP, runs_below
from immunax.runs.progress import Going, Progress, Step, progress
from immunax.runs.read import Reader
from immunax.runs.status import ORDER
from immunax.runs.sweeps import jobs_of
from immunax.runtime import console
from immunax.runtime.escaped import say
from immunax.runtime.sweeps.names import ELSEWHERE

_SHOWN, _FAILURES = 20, 5
"""Runs at work, and lines of failures, that a screen shows."""
_BAR = 40


@dataclass
class Watch:
    """Looks at runs again and again, and reads only what has changed.

    Attributes:
      paths: folders of runs.
      runs: how many will come, where that is known.
    """

    paths: Sequence[Path]
    runs: int | None = None
    _reader: Reader = field(default_factory=Reader)
    _jobs: dict[Path, tuple[Any, frozenset[str]]] = field(default_factory=dict)
    _first: dict[Path, Step] = field(default_factory=dict)

    def look(self) -> Progress:
        """How far they are now.

        Raises:
          UserError: a path is no folder.
        """
        found = runs_below(self.paths)
        runs = [self._reader.read(place) for place in found.places]
        waiting = sum(not (folder / name).exists() for folder in found.sweeps for name in self._jobs_of(folder))
        waiting = max(waiting, (self.runs or 0) - len(runs))
        now = datetime.now(UTC).replace(tzinfo=None)
        return progress(runs, waiting, now, time.monotonic(), self._first)

    def _jobs_of(self, folder: Path) -> frozenset[str]:
        # A sweep that is started again, or goes further, writes its files anew.
        files, known = (folder / SWEEP, folder / ELSEWHERE), self._jobs.get(folder)
        stamp = [file.stat().st_mtime_ns for file in files if file.exists()]
        if known is None or known[0] != stamp:
            known = self._jobs[folder] = stamp, jobs_of(folder)
        return known[1]


def watch(paths: Sequence[Path], every: float, runs: int | None = None) -> None:
    """Shows runs until nothing is left to come: on a terminal one place that is drawn anew, elsewhere a line now and then.

    Args:
      paths: folders of runs.
      every: seconds between two looks.
      runs: how many will come, where that is known.

    Raises:
      UserError: a path is no folder.
    """
    looking, said, at = Watch(paths, runs), "", float("-inf")
    with console.drawn_anew() as draw:
        while True:
            found = looking.look()
            if draw is not None:
                draw(_screen(found))
            elif summary(found) != said and (found.is_over or time.monotonic() - at >= console.LINE_SECONDS):
                said, at = summary(found), time.monotonic()
                say(said)
            if found.is_over:
                return
            time.sleep(every)


def summary(found: Progress) -> str:
    """How far runs are, in one line."""
    counts = {"waiting": found.waiting, **{name: found.counts.get(name, 0) for name in ORDER if name != "done"}}
    told = [f"{found.counts.get('done', 0)} of {found.total} runs done"]
    told += [f"{count} {name}" for name, count in counts.items() if count]
    if found.an_hour is not None:
        told.append(f"{found.an_hour:.3g} runs an hour")
    if found.left is not None:
        told.append(f"{console.span(found.left)} left")
    return ", ".join(told)


def _screen(found: Progress) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    head.add_row(
        ProgressBar(max(found.total, 1), found.counts.get("done", 0), width=_BAR), console.line(summary(found))
    )
    parts: list[RenderableType] = [head]
    if found.going:
        rows = [_row(each) for each in found.going[:_SHOWN]]
        parts.append(console.laid_out("", ["run", "phase", "step", "steps a second", "loss", "taken"], rows))
    if len(found.going) > _SHOWN:
        parts.append(console.line(f"and {len(found.going) - _SHOWN} more at work"))
    parts += [console.line(f"{run}: {told}") for run, told in found.failures[-_FAILURES:]]
    if len(found.failures) > _FAILURES:
        parts.append(console.line(f"and {len(found.failures) - _FAILURES} more that failed"))
    return Group(*parts)


def _row(each: Going) -> list[Any]:
    step = None if each.step is None else f"{each.step}" if each.steps is None else f"{each.step}/{each.steps}"
    seconds = None if each.seconds is None else console.span(each.seconds)
    return [each.run, each.phase or "starting", step, each.rate, each.loss, seconds]

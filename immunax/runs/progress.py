"""How far a set of runs has come: how many are done, how fast they go, and how long the rest takes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from immunax.runs.curves import newest
from immunax.runs.read import Run

_TRAIN = "train"
_STEPS = "config.trainer.steps"
_WALL, _REDONE = "goodput.wall", "goodput.seconds.redone"


class Step(NamedTuple):
    """Where a run was at a moment.

    Attributes:
      phase, step: of the last line that it logged.
      at: seconds of a clock.
    """

    phase: str
    step: int
    at: float


class Going(NamedTuple):
    """A run that is at work.

    Attributes:
      run: its name.
      phase, step: of the last line that it logged; None before the first.
      steps: of the whole phase, where that is known.
      rate: steps a second since it was first seen in this phase; None until it has moved.
      loss: of that line.
      seconds: that it has taken, all its starts, without what was computed in vain.
    """

    run: str
    phase: str | None
    step: int | None
    steps: int | None
    rate: float | None
    loss: Any
    seconds: float | None

    def share(self) -> float | None:
        """How much of its training is done; None where nothing says."""
        if self.phase is None or self.step is None:
            return None
        if self.phase != _TRAIN:
            return 1.0
        return min(1.0, self.step / self.steps) if self.steps else None


@dataclass(frozen=True)
class Progress:
    """A set of runs at one moment.

    Attributes:
      counts: runs by status.
      waiting: jobs of sweeps that have not begun.
      going: the runs that are at work.
      failures: ``(run, line)`` of those that failed or diverged, the newest last.
      typical: seconds of a run; None where none is done and none is far enough to tell.
    """

    counts: Mapping[str, int]
    waiting: int
    going: Sequence[Going]
    failures: Sequence[tuple[str, str]]
    typical: float | None

    @property
    def total(self) -> int:
        """Runs and jobs that have not begun."""
        return sum(self.counts.values()) + self.waiting

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to come: what was stopped may be started again."""
        return self.total > 0 and not (self.going or self.waiting or self.counts.get("stopped"))

    @property
    def an_hour(self) -> float | None:
        """Runs an hour, with as many at work as now."""
        return 3600 * len(self.going) / self.typical if self.typical and self.going else None

    @property
    def left(self) -> float | None:
        """Seconds until all are done, with as many at work as now; None where that cannot be told.

        What was stopped counts as what has not begun: how much of it is kept, its next start finds out.
        """
        if self.typical is None or not self.going:
            return None
        rest = sum(max(self.typical - (each.seconds or 0.0), 0.0) for each in self.going)
        return (rest + (self.waiting + self.counts.get("stopped", 0)) * self.typical) / len(self.going)


def progress(runs: Iterable[Run], waiting: int, now: datetime, clock: float, first: dict[Path, Step]) -> Progress:
    """How far runs have come.

    Args:
      runs: as they are now.
      waiting: jobs that have not begun.
      now: in UTC, without a zone.
      clock: seconds of a clock that never goes back.
      first: where each run was first seen in its phase; kept up here, from one look to the next.
    """
    runs = list(runs)
    going = [_going(run, now, clock, first) for run in runs if run.status == "running"]
    took = [seconds for run in runs if run.status == "done" and (seconds := _took(run)) is not None]
    if not took:
        shares = [(each.seconds, each.share()) for each in going]
        took = [seconds / share for seconds, share in shares if seconds and share]
    failed = [run for run in runs if run.status in ("failed", "diverged")]
    failed.sort(key=lambda run: str(run.values.get("failed")))
    told = [(run.place.name, str(run.values.get("failure"))) for run in failed]
    counts = Counter(run.status for run in runs)
    return Progress(counts, waiting, going, told, float(median(took)) if took else None)


def _took(run: Run) -> float | None:
    """Seconds of a run that has ended: of all its starts, or of the last alone where it kept no accounts."""
    return _number(run, _WALL) or _number(run, "seconds")


def _taken(run: Run, now: datetime) -> float | None:
    """Seconds of a run that is at work, of which none were in vain; where it keeps no accounts, since it was started."""
    started, wall = run.values.get("started"), _number(run, _WALL)
    if wall is not None:
        return wall - (_number(run, _REDONE) or 0.0)
    return max(0.0, (now - started).total_seconds()) if isinstance(started, datetime) else None


def _number(run: Run, name: str) -> float | None:
    value = run.values.get(name)
    return float(value) if isinstance(value, int | float) else None


def _going(run: Run, now: datetime, clock: float, first: dict[Path, Step]) -> Going:
    last, seconds, steps = newest(run.place.folder), _taken(run, now), run.values.get(_STEPS)
    if last is None:
        return Going(run.place.name, None, None, None, None, None, seconds)
    phase, step, values = last
    seen = first.get(run.place.folder)
    if seen is None or seen.phase != phase or step < seen.step:
        seen = first[run.place.folder] = Step(phase, step, clock)
    rate = (step - seen.step) / (clock - seen.at) if step > seen.step and clock > seen.at else None
    whole = steps if phase == _TRAIN and isinstance(steps, int) else None
    return Going(run.place.name, phase, step, whole, rate, values.get("loss"), seconds)

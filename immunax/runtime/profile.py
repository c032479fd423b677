"""A few steps of a run as a profile that xprof opens, in the run's folder.

The loop that is asked for tells of every step right before it dispatches it. What was dispatched before is then waited for at
both ends of the profile, and nowhere else. Every process takes the same steps; the leader alone records, as its devices do what
all do.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax

from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.runtime.leader import is_leader

FOLDER = "trace"
TRAIN, ATTACK = "train", "attack"
"""Loops: of the defender, and of a fine-tuning attack."""

WARM = 2
"""Steps at the beginning of a loop that are left out where no first one is named: they compile, and load what was compiled."""
MOST = 100
"""Steps of a profile. One of more is slow to open, and soon past what a file of its kind can hold."""


class Steps(NamedTuple):
    """Which steps of a loop are recorded.

    Attributes:
      count: how many.
      first: the number of the first, from 1; None for the one behind those that compile.
    """

    count: int
    first: int | None = None


def read(asked: Any) -> Steps | None:
    """What ``trace=`` asks for; None for nothing.

    Args:
      asked: a number of steps, or ``FIRST-LAST``.

    Raises:
      UserError: it is neither, or too many.
    """
    if asked is None:
        return None
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", str(asked))
    if found is not None:
        one, last = int(found[1]), None if found[2] is None else int(found[2])
        steps = Steps(one) if last is None else Steps(last - one + 1, one)
        if 1 <= steps.count <= MOST and one >= 1:
            return steps
    raise UserError(
        f"trace={asked}: expected a number of steps, or the first and the last as 10-12; at most {MOST} steps."
    )


@dataclass
class _Recorder:
    loop: str
    steps: Steps
    folder: Path
    last: int = 0
    first: int = 0
    ended: bool = False
    done: list[int] = field(default_factory=list)

    def at(self, step: int, before: Any) -> None:
        """Begins or ends the profile right before a step."""
        if step != self.last + 1 or not self.first:  # the loop begins, or another one does
            self.end(before)
            self.first = self.steps.first or step + WARM
        self.last = step
        if step == self.first + self.steps.count:
            self.end(before)
        if not self.ended and self.first <= step < self.first + self.steps.count:
            if not self.done:
                self._begin(before)
            self.done.append(step)

    def _begin(self, before: Any) -> None:
        jax.block_until_ready(before)
        if is_leader():
            options = jax.profiler.ProfileOptions()
            # A line for each call of a function in Python is most of a file, and none of the work.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self.folder, profiler_options=options)

    def end(self, before: Any) -> None:
        """Ends the profile, if it has begun: there is one a run."""
        if self.ended or not self.done:
            return
        self.ended = True
        jax.block_until_ready(before)
        if is_leader():
            try:
                jax.profiler.stop_trace()
            except (RuntimeError, OSError) as error:  # of the disk; the run needs it for nothing
                console.note(f"{self.folder}: the profile could not be written ({error})")
                self.done.clear()


_now: _Recorder | None = None


@contextmanager
def recorded(steps: Steps | None, loop: str, folder: Path) -> Iterator[None]:
    """Records steps of a loop within the block; says in one line where, or why not.

    Args:
      steps: from :func:`read`.
      loop: which: :data:`TRAIN` or :data:`ATTACK`; the first of a kind that gets so far.
      folder: of the run.
    """
    global _now
    if steps is None:
        yield
        return
    mine = _now = _Recorder(loop, steps, folder / FOLDER)
    try:
        yield
    finally:
        _now = None
        mine.end(())
        console.note(_told(mine))


def _told(mine: _Recorder) -> str:
    if not mine.done:
        return f"trace: no step was recorded, as no {mine.loop} loop of this start got to the first that was asked for"
    span = f"step {mine.done[0]}" if len(mine.done) == 1 else f"steps {mine.done[0]} to {mine.done[-1]}"
    return f"trace: {span} of the {mine.loop} loop are in {mine.folder}; xprof server --logdir {mine.folder} shows them"


@contextmanager
def step(loop: str, number: int, before: Any) -> Iterator[None]:
    """One step of a loop, around what dispatches it, by its number in the profile.

    Args:
      loop: of :func:`recorded`.
      number: of the step, from 1.
      before: what was dispatched last, for both ends of a profile to wait for.
    """
    if _now is not None and _now.loop == loop:
        _now.at(number, before)
    with jax.profiler.StepTraceAnnotation(loop, step_num=number):
        yield


def parts(loop: str, done: int, end: int) -> Iterator[tuple[int, int]]:
    """The steps ``(done, end]`` of a loop that could take them at once: those that are recorded by themselves, the others so."""
    while done < end:
        alone = _now is not None and _now.loop == loop and not _now.ended
        stop = done + 1 if alone else end
        yield done, stop
        done = stop


def pause(loop: str, before: Any) -> None:
    """Ends a profile where a loop is interrupted by other work that would fill it.

    Args:
      loop, before: as for :func:`step`.
    """
    if _now is not None and _now.loop == loop:
        _now.end(before)

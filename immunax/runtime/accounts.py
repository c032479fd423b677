"""What the wall time of a run went into: categories that add up to it, start by start, and what of it was computed in vain.

Goodput is the share of that time which brought the run forward, as Google's ml-goodput-measurement has it. A start that was
killed has spent time on what no disk keeps: the next one takes it out of what was useful, and calls it :data:`REDONE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from immunax.runtime import phase
from immunax.runtime.errors import UserError
from immunax.runtime.phase import Phase

USEFUL = ("step", "attack", "evaluate")
"""Steps of the defender; attacks; what models are asked, and what judges say of it."""
COMPILE, REDONE, STARTUP, OTHER = "compile", "redone", "startup", "other"
CATEGORIES = (*USEFUL, COMPILE, "load", "prepare", "restore", "save", REDONE, STARTUP, OTHER)
"""``load`` reads model and data; ``prepare`` makes a model to start from, batches and a state; ``restore`` is of checkpoints,
``save`` of all that is left on disk; ``startup`` is from the process's birth to the command."""

_SEGMENTS = 16
"""That are told apart: as many checkpoints may be damaged before the account of what is lost becomes too small."""


@dataclass(frozen=True)
class Segment:
    """Useful seconds up to something that was kept.

    Attributes:
      step: of the checkpoint; None where it is kept whatever checkpoint the next start goes on from.
      seconds: by useful category.
    """

    step: int | None
    seconds: Mapping[str, float]


@dataclass
class Start:
    """One start of a run.

    Attributes:
      began: seconds since 1970.
      spent: seconds by category.
      segments: what was kept, in order.
      saved: seconds of compiling that the compile cache has saved, less those of reading it.
      again: steps that it took and an earlier start had taken before it.
      tokens: by what computed them, how many were real, and how many there were with padding.
      programs: that were asked for and were not in the process yet.
      cached: how many of these the compile cache had.
      phases: by name, how fast they were.
    """

    began: float
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    segments: list[Segment] = field(default_factory=list)
    saved: float = 0.0
    again: int = 0
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    programs: int = 0
    cached: int = 0
    phases: dict[str, Phase] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """Seconds that it took."""
        return sum(self.spent.values())

    @property
    def unkept(self) -> dict[str, float]:
        """Useful seconds since what was kept last."""
        return {name: self.spent[name] - sum(each.seconds[name] for each in self.segments) for name in USEFUL}

    def keep(self, step: int | None) -> None:
        """Notes that all that was computed so far is on disk; ``step`` as of :class:`Segment`."""
        self.segments.append(Segment(step, self.unkept))
        if len(self.segments) > _SEGMENTS:
            first, second, *rest = self.segments
            joined = {name: first.seconds[name] + second.seconds[name] for name in USEFUL}
            self.segments = [Segment(None, joined), *rest]

    def lose(self, step: int | None) -> None:
        """Notes that the run went on from a checkpoint, and computes what came after it again.

        Args:
          step: of the checkpoint; None where there are none.
        """
        kept, lost = [], [self.unkept]
        for each in self.segments:
            if step is not None and each.step is not None and each.step > step:
                lost.append(dict(each.seconds))
            else:
                kept.append(each)
        for seconds in lost:
            for name, value in seconds.items():
                self.spent[name] -= value
                self.spent[REDONE] += value
        self.segments = kept


class Ledger:
    """The account of a start as it goes; every second is of one category, the innermost that was entered.

    Args:
      start: the account.
      clock: seconds, which never go back.
      before: seconds of the process before now.
    """

    def __init__(self, start: Start, clock: Callable[[], float], before: float = 0.0) -> None:
        self.start = start
        self._clock, self._last, self._category = clock, clock(), OTHER
        self._compiled: list[tuple[float, float]] = []
        start.spent[STARTUP] += before

    def enter(self, category: str) -> str:
        """Spends what follows on a category; gives the one before."""
        self.settle()
        before, self._category = self._category, category
        return before

    def settle(self) -> float:
        """Writes down what was spent until now; gives the time of the clock."""
        now = self._clock()
        self.start.spent[self._category] += now - self._last
        self._last = now
        return now

    def compiled(self, seconds: float) -> None:
        """Notes that a trace, a lowering or a compilation has just ended; it may lie within a longer one that ends later.

        Args:
          seconds: that it took.
        """
        now, inside = self.settle(), 0.0
        while self._compiled and self._compiled[-1][0] >= now - seconds:
            begin, end = self._compiled.pop()
            inside += end - begin
        self._compiled.append((now - seconds, now))
        moved = min(max(seconds - inside, 0.0), self.start.spent[self._category])
        self.start.spent[self._category] -= moved
        self.start.spent[COMPILE] += moved


def told(starts: Sequence[Start]) -> dict[str, Any]:
    """The goodput of a run, JSON-able.

    Args:
      starts: of the run, the last one as it is now.

    Returns:
      ``share``, of ``wall``, which is the sum of ``seconds`` by category; ``down``, the seconds between the starts, which are in
      none; ``starts``; ``redone_steps``; ``compile_saved``, the seconds that the compile cache has saved.
    """
    seconds = {name: round(sum(each.spent[name] for each in starts), 3) for name in CATEGORIES}
    wall = round(sum(seconds.values()), 3)
    # Clocks of several machines may disagree by more than the time between.
    down = sum(max(0.0, later.began - earlier.began - earlier.wall) for earlier, later in pairwise(starts))
    return {
        "share": round(sum(seconds[name] for name in USEFUL) / wall, 4) if wall else None,
        "wall": wall,
        "seconds": seconds,
        "down": round(down, 3),
        "starts": len(starts),
        "redone_steps": sum(each.again for each in starts),
        "compile_saved": round(sum(each.saved for each in starts), 3),
    }


def tokens_told(starts: Sequence[Start]) -> dict[str, tuple[int, int]]:
    """Real tokens, and all with padding, by what computed them, over all starts."""
    names = dict.fromkeys(name for each in starts for name in each.tokens)
    pairs = {name: [each.tokens[name] for each in starts if name in each.tokens] for name in names}
    return {name: (sum(real for real, _ in each), sum(shape for _, shape in each)) for name, each in pairs.items()}


def phases_of(starts: Sequence[Start]) -> dict[str, Phase]:
    """The phases of a run by name, each over all starts."""
    found: dict[str, Phase] = {}
    for name, each in (pair for start in starts for pair in start.phases.items()):
        found[name] = found[name].plus(each) if name in found else each
    return found


def as_json(start: Start) -> dict[str, Any]:
    """A start as :func:`from_json` reads it."""
    segments = [[each.step, dict(each.seconds)] for each in start.segments]
    phases = {name: phase.as_json(each) for name, each in start.phases.items()}
    return {**vars(start), "spent": dict(start.spent), "segments": segments, "phases": phases}


def from_json(said: Any) -> Start:
    """What :func:`as_json` wrote.

    Raises:
      UserError: it is something else.
    """
    try:
        spent = {name: float(said["spent"][name]) for name in CATEGORIES}
        segments = [
            Segment(None if step is None else int(step), {name: float(seconds[name]) for name in USEFUL})
            for step, seconds in said["segments"]
        ]
        tokens = {str(name): (int(real), int(shape)) for name, (real, shape) in said["tokens"].items()}
        # Earlier versions wrote no phases.
        phases = {str(name): phase.from_json(each) for name, each in said.get("phases", {}).items()}
        programs, cached = int(said.get("programs", 0)), int(said.get("cached", 0))
        once = float(said["saved"]), int(said["again"]), tokens, programs, cached, phases
        return Start(float(said["began"]), spent, segments, *once)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError("it is no account of a run's starts") from error

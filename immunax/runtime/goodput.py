"""The accounts of the runs at work in this process: entered by whatever spends time, fed by JAX's own events, kept on disk.

The file is written every few seconds by a thread of its own, whatever the run is busy with: who is killed loses no more than
that. Outside a command nothing is kept, and nothing here does anything; so it is on every process but the leader.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from immunax.runtime import accounts, atomic, console, pace
from immunax.runtime.accounts import CATEGORIES, COMPILE, USEFUL, Ledger, Start
from immunax.runtime.errors import UserError
from immunax.runtime.leader import is_leader
from immunax.runtime.phase import Phase
from immunax.runtime.untrusted import values

FILE = "goodput.json"
_SECONDS = 5.0
"""Between two writes."""
_COMPILING, _PROGRAM = "/jax/core/compile/", "/jax/core/compile/backend_compile_duration"
"""Of all that compiling is made of, and of its last part, which every program has once, from the compile cache too."""
_SAVED, _HIT = "/jax/compilation_cache/compile_time_saved_sec", "/jax/compilation_cache/cache_hits"
_STARTED = 19  # the field of /proc/self/stat behind the name, in ticks since the machine's start

T = TypeVar("T")

_now: "_Accounts | None" = None


class _Accounts:
    """One ledger, the folders of the runs that it is of, several where they are one program, and the phases that go on."""

    def __init__(self, before: float) -> None:
        start = Start(time.time() - before)
        self.ledger, self.owner = Ledger(start, time.monotonic, before), threading.get_ident()
        self.earlier: dict[Path, list[Start]] = {}
        self.phases: dict[str, Phase] = {}
        self.lock, self._over = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="immunax_goodput")
        self._thread.start()

    def _keep(self) -> None:
        pace.aside()
        while not self._over.wait(_SECONDS):
            self.write()

    def write(self) -> None:
        """Writes the file of each run; a disk that takes none ends no run."""
        with self.lock:
            self.ledger.settle()
            found = {folder: [*map(accounts.as_json, self.starts(folder))] for folder in self.earlier}
        for folder, starts in found.items():
            with suppress(UserError, OSError), atomic.file(folder / FILE) as temp:
                temp.write_text(json.dumps({"starts": starts}) + "\n")

    def starts(self, folder: Path) -> list[Start]:
        """Of a run, this one last."""
        return [*self.earlier[folder], self.ledger.start]

    def close(self) -> None:
        """Writes for the last time."""
        self._over.set()
        self._thread.join(_SECONDS)  # a disk that hangs holds no run up for longer
        self.write()


@contextmanager
def kept(whole_process: bool) -> Iterator[None]:
    """Keeps accounts for the length of the block.

    Args:
      whole_process: they begin with the process, and not with the block.
    """
    global _now
    if not is_leader():
        yield
        return
    _listen()
    _now = _Accounts(_age() if whole_process else 0.0)
    try:
        yield
    finally:
        ended, _now = _now, None
        ended.close()


def record(folder: Path) -> None:
    """Begins to write them into a run's folder, behind those of its earlier starts.

    Args:
      folder: of a run that is not finished, and that no other process is at work on.
    """
    if _now is None:
        return
    earlier = _earlier(folder)
    with _now.lock:
        _now.earlier[folder] = earlier
    _now.write()


@contextmanager
def spending(category: str) -> Iterator[None]:
    """Spends the time of the block on a category, but for what goes to others within it.

    Args:
      category: one of :data:`~immunax.runtime.accounts.CATEGORIES`.
    """
    mine = _now if _now is not None and threading.get_ident() == _now.owner else None
    if mine is None:
        yield
        return
    with mine.lock:
        before = mine.ledger.enter(category)
    try:
        yield
    finally:
        with mine.lock:
            mine.ledger.enter(before)


def spent_on(category: str, items: Iterable[T]) -> Iterator[T]:
    """Items, with the time that each takes to come spent on a category."""
    iterator = iter(items)
    while True:
        with spending(category):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def keep(step: int | None = None) -> None:
    """Notes that what was computed so far need not be computed again.

    Args:
      step: of the checkpoint that holds it; None where it is kept whatever checkpoint the next start goes on from.
    """
    if _now is not None:
        with _now.lock:
            _now.ledger.settle()
            _now.ledger.start.keep(step)


def resumed(step: int | None = None, again: int = 0) -> None:
    """Notes what this start goes on from: what earlier ones computed and did not keep was in vain.

    Args:
      step: of the checkpoint, 0 where there was none; None for a run that has none.
      again: steps that are taken again.
    """
    if _now is None:
        return
    with _now.lock:
        for start in (each for starts in _now.earlier.values() for each in starts):
            start.lose(step)
        _now.ledger.start.again += again


def count_tokens(name: str, real: int, shape: int) -> None:
    """Notes what is computed.

    Args:
      name: of what computes it.
      real: tokens of examples.
      shape: tokens with padding.
    """
    if _now is not None:
        with _now.lock:
            tokens = _now.ledger.start.tokens
            before = tokens.get(name, (0, 0))
            tokens[name] = before[0] + real, before[1] + shape


class Compiled(NamedTuple):
    """What this start has compiled so far.

    Attributes:
      seconds: of tracing, lowering and compiling, or reading the compile cache.
      programs: that were not in the process yet.
      cached: how many of these the compile cache had.
    """

    seconds: float
    programs: int
    cached: int


def compiled() -> Compiled | None:
    """What was compiled until now; None where no accounts are kept, or not of this thread."""
    if _now is None or threading.get_ident() != _now.owner:
        return None
    with _now.lock:
        start = _now.ledger.start
        return Compiled(start.spent[COMPILE], start.programs, start.cached)


def count_phase(name: str, more: Phase) -> None:
    """Adds to a phase of the run.

    Args:
      name: of the phase.
      more: what came to it.
    """
    if _now is not None:
        with _now.lock:
            for phases in (_now.phases, _now.ledger.start.phases):
                phases[name] = phases[name].plus(more) if name in phases else more


def end_phases(device_memory: int | None, host_memory: int) -> dict[str, Phase]:
    """What came to each phase since it ended last; they may begin again.

    Args:
      device_memory, host_memory: as of :class:`~immunax.runtime.phase.Phase`, until now.
    """
    if _now is None:
        return {}
    with _now.lock:
        for name, each in list(_now.phases.items()):
            count_phase(name, Phase(each.unit, device_memory=device_memory, host_memory=host_memory))
        ended, _now.phases = _now.phases, {}
    return ended


def phases(folder: Path) -> dict[str, Phase]:
    """The phases of all starts of a run by name; none where no accounts are kept."""
    if _now is None or folder not in _now.earlier:
        return {}
    with _now.lock:
        return accounts.phases_of(_now.starts(folder))


def tokens(folder: Path) -> dict[str, tuple[int, int]]:
    """What :func:`count_tokens` was told of by all starts of a run, by name; nothing where no accounts are kept."""
    if _now is None or folder not in _now.earlier:
        return {}
    with _now.lock:
        return accounts.tokens_told(_now.starts(folder))


def summary(folder: Path) -> dict[str, Any] | None:
    """The goodput of a run until now, as :func:`~immunax.runtime.accounts.told` gives it, for its manifest; said in one line.

    Args:
      folder: that :func:`record` was called with.

    Returns:
      None where no accounts are kept. Where several runs are one program ``runs`` says how many share the seconds.
    """
    if _now is None or folder not in _now.earlier:
        return None
    with _now.lock:
        _now.ledger.settle()
        found = accounts.told(_now.starts(folder))
    if len(_now.earlier) > 1:
        found["runs"] = len(_now.earlier)
    console.note(in_words(found))
    return found


def in_words(found: dict[str, Any]) -> str:
    """A run's goodput in one line."""
    seconds = {name: found["seconds"][name] for name in CATEGORIES}
    most = sorted(seconds, key=lambda name: seconds[name], reverse=True)
    useful, rest = (
        [f"{name} {seconds[name]:.1f}" for name in most if (name in USEFUL) == wanted and seconds[name] >= 0.05]
        for wanted in (True, False)
    )
    share = found["share"] or 0.0
    parts = [f"goodput: {share:.0%} of {found['wall']:.1f} s useful ({', '.join(useful) or 'nothing'})"]
    parts += [f"the rest {', '.join(rest)}"] if rest else []
    if found["compile_saved"] >= 0.05:
        parts.append(f"the compile cache saved {found['compile_saved']:.1f}")
    if found["starts"] > 1:
        again = f", {found['redone_steps']} steps taken again" if found["redone_steps"] else ""
        parts.append(f"{found['starts']} starts, {found['down']:.1f} s between them{again}")
    return "; ".join(parts)


def read(folder: Path) -> list[Start]:
    """The accounts in a run's folder, start by start; none where there is no file.

    Raises:
      UserError: it cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return []
    said = values.read_object(path).get("starts")
    return [accounts.from_json(each) for each in said] if isinstance(said, list) else []


def _earlier(folder: Path) -> list[Start]:
    try:
        return read(folder)
    except UserError as error:
        console.note(f"{folder / FILE}: {error}; the accounts begin anew")
        return []


def _age() -> float:
    """Seconds since this process was started; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_STARTED])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


_listening = False


def _listen() -> None:
    global _listening
    if not _listening:
        import jax  # which whoever reads accounts does without

        jax.monitoring.register_event_duration_secs_listener(_heard)
        jax.monitoring.register_event_listener(_counted)
        _listening = True


def _heard(event: str, duration_secs: float, **_: Any) -> None:
    # Of a thread beside the one that the time is of, nobody waits for what it compiles, or somebody is charged already.
    if _now is None or threading.get_ident() != _now.owner:
        return
    with _now.lock:
        if event.startswith(_COMPILING):
            _now.ledger.compiled(duration_secs)
            _now.ledger.start.programs += event == _PROGRAM
        elif event == _SAVED:
            _now.ledger.start.saved += duration_secs


def _counted(event: str, **_: Any) -> None:
    if event == _HIT and _now is not None and threading.get_ident() == _now.owner:
        with _now.lock:
            _now.ledger.start.cached += 1

"""How fast each phase of a run is: told at its end, and kept in the accounts of the run.

Whoever computes something that the host waits for does it under the meter of its phase, and says what it was. Nothing here
waits for a device. Outside a command, and in every process but the leader, nothing is measured.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from immunax.runtime import console, goodput, phase
from immunax.runtime.goodput import Compiled
from immunax.runtime.metrics import Metrics
from immunax.runtime.peaks import peak
from immunax.runtime.phase import Phase, Stretches, Work
from immunax.runtime.together import gathered


class Meter:
    """The clock of one phase.

    Args:
      name: of the phase, such as ``train``.
      unit: what a step of it is, in the singular.
      devices: that it is computed on.
      dtype: of the computation.
    """

    def __init__(self, name: str, unit: str, devices: int, dtype: str) -> None:
        self._name, self._unit, self._devices, self._dtype = name, unit, devices, dtype
        self._seen: Compiled | None = None
        self._at, self._cold = 0.0, False

    @property
    def is_read(self) -> bool:
        """Whether anybody keeps what it says."""
        return goodput.compiled() is not None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block is of the phase, and its first stretch begins with it."""
        self._seen, self._at = goodput.compiled(), time.monotonic()
        try:
            yield
        finally:
            self._add(None)
            self._seen = None

    def done(self, work: Callable[[], Work]) -> dict[str, float]:
        """Ends a stretch: the host has seen what was computed in it. The next one begins.

        Args:
          work: what that was; called only where it is measured.

        Returns:
          What :func:`~immunax.runtime.phase.rates` knows of this stretch, and its ``seconds``; nothing of one for which a program
          was compiled.
        """
        stretch = self._add(work)
        if stretch is None:
            return {}
        found = phase.rates(stretch, peak(self._dtype))
        return {"seconds": stretch.seconds} | {name: value for name, value in found.items() if value is not None}

    def _add(self, work: Callable[[], Work] | None) -> Stretches | None:
        """Keeps what there is since the last time; gives it where it was a warm stretch, before which nothing was compiled."""
        now = goodput.compiled()
        if now is None or self._seen is None:
            return None
        until = time.monotonic()
        seconds, compiling = until - self._at, now.seconds - self._seen.seconds
        cold = self._cold = self._cold or now.programs > self._seen.programs
        stretch = Stretches()
        if work is not None:
            running = max(0.0, seconds - compiling)
            stretch, self._cold = Stretches(running, running * self._devices, work()), False
        counts = now.programs - self._seen.programs, now.cached - self._seen.cached
        parts = {"cold" if cold else "warm": stretch, "peak": peak(self._dtype)}
        goodput.count_phase(self._name, Phase(self._unit, seconds, compiling, *counts, **parts))
        self._seen, self._at = now, until
        return None if cold or work is None else stretch


def end(of: str = "") -> None:
    """Ends the phases that go on, in every process at once; says in one line of each what it came to.

    Args:
      of: what lines call it by, behind the name of the phase, such as the name of a model.
    """
    device, host = zip(*gathered(_memory()), strict=True)
    most = max((each for each in device if each is not None), default=None), max(host)
    for name, found in goodput.end_phases(*most).items():
        console.note(f"{' '.join(filter(None, (name, of)))}: {phase.in_words(found)}")


def summary(folder: Path) -> dict[str, Any]:
    """The phases of a run by name, of all its starts, as :func:`~immunax.runtime.phase.told` gives each, for its manifest.

    Args:
      folder: that :func:`~immunax.runtime.goodput.record` was called with.
    """
    return {name: phase.told(each) for name, each in goodput.phases(folder).items()}


def log(metrics: Metrics, folder: Path) -> None:
    """Logs one line a phase, ``performance/NAME``, with the numbers of :func:`summary`.

    Args:
      metrics: of the run.
      folder: as for :func:`summary`.
    """
    for name, each in goodput.phases(folder).items():
        metrics.resume(f"performance/{name}", -1)
        numbers = {key: value for key, value in phase.told(each).items() if value is not None}
        metrics.log(each.steps, f"performance/{name}", numbers)


def _memory() -> tuple[int | None, int]:
    """The most bytes that were in use on any device of this process until now, and the most that it had in memory itself."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    # Kibibytes, but on macOS.
    scale = 1 if sys.platform == "darwin" else 1024
    return max(used, default=None), scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

"""How fast the phases of a run were: work and seconds, added up stretch by stretch, and the rates that they come to.

A stretch is what the host waits for at once: a step of the defender, some steps of an attack, a model that is asked. One that a
program was compiled for, as the first, is cold; rates are over the others. A phase of which each stretch was cold has the rates
of those, their seconds without those of compiling.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple


class Work(NamedTuple):
    """What is computed, on all devices together.

    Attributes:
      steps: in the unit of the phase.
      tokens: of examples.
      computed: tokens with padding.
      flops: that the tokens of examples need, by :mod:`~immunax.models.flops`.
      products: operations of the matrix products that are computed, of padding and a second time too; 0 where nobody counts.
    """

    steps: int
    tokens: int = 0
    computed: int = 0
    flops: float = 0.0
    products: float = 0.0

    def plus(self, other: "Work") -> "Work":
        """Both together."""
        return Work(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.computed + other.computed,
            self.flops + other.flops,
            self.products + other.products,
        )


class Stretches(NamedTuple):
    """Some stretches together.

    Attributes:
      seconds: that they took, without those of compiling.
      device_seconds: the same times the devices that they were computed on.
      work: what was computed.
    """

    seconds: float = 0.0
    device_seconds: float = 0.0
    work: Work = Work(0)

    def plus(self, other: "Stretches") -> "Stretches":
        """Both together."""
        device_seconds = self.device_seconds + other.device_seconds
        return Stretches(self.seconds + other.seconds, device_seconds, self.work.plus(other.work))


@dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
      unit: what a step of it is, in the singular.
      seconds: in it, those of compiling and of whatever is in no stretch too.
      compile_seconds: of these, those of tracing, lowering and compiling, or reading the compile cache.
      programs: that were asked for in it and were not in this process yet.
      cached: how many of these the compile cache had.
      warm, cold: its stretches.
      peak: operations a second of one device at most, in the dtype of the computation; None where nobody knows.
      device_memory: bytes, the most that was in use on any device until it ended; None where devices do not say.
      host_memory: bytes, the most that any process had in memory until it ended.
    """

    unit: str
    seconds: float = 0.0
    compile_seconds: float = 0.0
    programs: int = 0
    cached: int = 0
    warm: Stretches = field(default_factory=Stretches)
    cold: Stretches = field(default_factory=Stretches)
    peak: float | None = None
    device_memory: int | None = None
    host_memory: int | None = None

    def plus(self, other: "Phase") -> "Phase":
        """Both together: of another start, or the same one later."""
        return replace(
            self,
            seconds=self.seconds + other.seconds,
            compile_seconds=self.compile_seconds + other.compile_seconds,
            programs=self.programs + other.programs,
            cached=self.cached + other.cached,
            warm=self.warm.plus(other.warm),
            cold=self.cold.plus(other.cold),
            peak=other.peak or self.peak,
            device_memory=_most(self.device_memory, other.device_memory),
            host_memory=_most(self.host_memory, other.host_memory),
        )

    @property
    def measured(self) -> Stretches:
        """Those that rates are over."""
        return self.warm if self.warm.work.steps else self.cold

    @property
    def steps(self) -> int:
        """All of them."""
        return self.warm.work.steps + self.cold.work.steps


def _most(one: int | None, other: int | None) -> int | None:
    known = [each for each in (one, other) if each is not None]
    return max(known, default=None)


def rates(stretches: Stretches, peak: float | None) -> dict[str, float | None]:
    """What stretches come to a second.

    Args:
      stretches: any.
      peak: as of :class:`Phase`.

    Returns:
      ``tokens_per_second`` of examples and ``computed_tokens_per_second`` with padding; ``model_flops_per_second`` and
      ``product_flops_per_second``, on all devices together; ``mfu`` and ``hfu``, the same as shares of the peak of the devices
      (model and hardware FLOPs utilisation, Chowdhery et al. 2022, appendix B); None for what is not known.
    """
    work, seconds = stretches.work, stretches.seconds
    able = (peak or 0.0) * stretches.device_seconds

    def over(amount: float, whole: float) -> float | None:
        return amount / whole if amount and whole > 0 else None

    return {
        "tokens_per_second": over(work.tokens, seconds),
        "computed_tokens_per_second": over(work.computed, seconds),
        "model_flops_per_second": over(work.flops, seconds),
        "product_flops_per_second": over(work.products, seconds),
        "mfu": over(work.flops, able),
        "hfu": over(work.products, able),
    }


def told(phase: Phase) -> dict[str, Any]:
    """A phase for a manifest, JSON-able.

    Returns:
      What :func:`rates` gives, and beside it: ``UNITs`` and ``seconds`` of the whole phase, ``compile_seconds``, ``programs`` and
      ``cached_programs`` of these; ``tokens``, ``computed_tokens`` of the whole phase; ``measured_UNITs`` and
      ``measured_seconds`` that the rates are over, and whether these were ``warm``; ``devices``, ``peak_flops_per_second`` of one
      of them; and ``device_memory_peak``, ``host_memory_peak`` in bytes.
    """
    measured, both = phase.measured, phase.warm.plus(phase.cold)
    devices = measured.device_seconds / measured.seconds if measured.seconds else None
    return {
        f"{phase.unit}s": phase.steps,
        "seconds": round(phase.seconds, 3),
        "compile_seconds": round(phase.compile_seconds, 3),
        "programs": phase.programs,
        "cached_programs": phase.cached,
        "tokens": both.work.tokens,
        "computed_tokens": both.work.computed,
        f"measured_{phase.unit}s": measured.work.steps,
        "measured_seconds": round(measured.seconds, 3),
        "warm": bool(phase.warm.work.steps),
        "devices": None if devices is None else round(devices, 2),
        "peak_flops_per_second": phase.peak,
        **{name: _short(value) for name, value in rates(measured, phase.peak).items()},
        "device_memory_peak": phase.device_memory,
        "host_memory_peak": phase.host_memory,
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def in_words(phase: Phase) -> str:
    """A phase in one line."""
    found = rates(phase.measured, phase.peak)
    cached = f" ({phase.cached} from the cache)" if phase.cached else ""
    compiled = f", {phase.compile_seconds:.1f} of them compiling {_counted(phase.programs, 'program')}{cached}"
    speeds = [
        f"{value / scale:,.3g} {words}" if scale > 1 else f"{value:,.0f} {words}"
        for name, words, scale in _SPEEDS
        if (value := found[name]) is not None
    ]
    shares = [f"{name.upper()} {value:.1%}" for name in ("mfu", "hfu") if (value := found[name]) is not None]
    parts = [
        f"{_counted(phase.steps, phase.unit)} in {phase.seconds:.1f} s{compiled if phase.programs else ''}",
        ", ".join([*speeds, *shares]),
        _memory(phase),
    ]
    return "; ".join(filter(None, parts))


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


_SPEEDS = (("tokens_per_second", "tokens/s", 1), ("model_flops_per_second", "model TFLOP/s", 1e12))


def _memory(phase: Phase) -> str:
    if phase.device_memory is not None:
        return f"at most {phase.device_memory / 2**30:.3g} GiB of a device until now"
    return "" if phase.host_memory is None else f"at most {phase.host_memory / 2**30:.3g} GiB in memory until now"


def as_json(phase: Phase) -> dict[str, Any]:
    """A phase as :func:`from_json` reads it."""
    return asdict(phase)


def from_json(said: Mapping[str, Any]) -> Phase:
    """What :func:`as_json` wrote; of anything else it raises what reading it did."""

    def stretches(seconds: float, device_seconds: float, work: list[Any]) -> Stretches:
        steps, tokens, computed, flops, products = work
        done = Work(int(steps), int(tokens), int(computed), float(flops), float(products))
        return Stretches(float(seconds), float(device_seconds), done)

    def known(name: str, kind: type) -> Any:
        return None if said[name] is None else kind(said[name])

    return Phase(
        str(said["unit"]),
        float(said["seconds"]),
        float(said["compile_seconds"]),
        int(said["programs"]),
        int(said["cached"]),
        stretches(*said["warm"]),
        stretches(*said["cold"]),
        known("peak", float),
        known("device_memory", int),
        known("host_memory", int),
    )

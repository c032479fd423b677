"""Before money is spent: does each program fit its slice, how long will the sweep take, and what will it cost?"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunax.runtime import atomic
from immunax.runtime.errors import UserError
from tpu import package
from tpu.calls import told
from tpu.job import Job, named_shape
from tpu.mistakes import EXIT_NOT_FIT, NotFitError
from tpu.package import Run
from tpu.prices import Price
from tpu.slices import ROOT, Shape, part_of

Arguments = tuple[str, ...]
"""Of ``immunax.compile``."""

_HOUR = 3600.0
_KEPT = ("memory", "seconds", "bound", "fits", "refusal", "devices", "run_seconds")


@dataclass(frozen=True)
class Forecast:
    """What runs come to.

    Attributes:
      runs: how many.
      hours: of each.
      told: how they are known.
      parts: of the slices, which have as many runs at once.
    """

    runs: int
    hours: float
    told: str
    parts: int = 1

    @property
    def taken(self) -> float:
        """Hours that the slices of one run are taken for by all of them, one after another."""
        return self.lasts(1)

    def lasts(self, at_once: int) -> float:
        """Hours on the clock.

        Args:
          at_once: so many times the slices that one run takes.
        """
        return -(-self.runs // (self.parts * at_once)) * self.hours

    def line(self, price: Price, at_once: int | None) -> str:
        """How long, and how dear.

        Args:
          price: of all slices that one run takes, an hour.
          at_once: so many times these slices; None where that is the engine's to say.
        """
        clock = "as many at a time as the engine has room for"
        if at_once is not None:
            clock = f"{self.lasts(at_once):.3g} hours on the clock with {at_once} at a time"
        shared = f", {self.parts} at once," if self.parts > 1 else ""
        return (
            f"{self.runs} run{'s'[: self.runs > 1]} of {self.hours:.3g} hours{shared} {self.told}: {self.taken:.3g} hours of "
            f"{price.told}, ${self.taken * price.hour:,.2f}; {clock}"
        )


def check(
    interpreter: str, runs: Sequence[Run], shape: Shape, slices: int, given: float | None, most: int, parts: int = 1
) -> Forecast:
    """Compiles each program of a command for its slice.

    Args:
      interpreter: that has the package.
      runs: of the command.
      shape: of each slice.
      slices: that compute together.
      given: hours a run, as the user knows them; they go before what is predicted.
      most: programs that are compiled; of a sweep of fields many have the same shapes, so that each choice of groups comes first.
      parts: of the slice, each with a run of its own.

    Returns:
      The hours: steps of trainings and of fine-tuning attacks alone, as fast as the compiled program can be.

    Raises:
      NotFitError: one does not fit.
      UserError: it cannot be compiled, or has no steps.
    """
    asked = [tuple(run.compile) for run in runs if run.compile is not None]
    if not asked:
        raise UserError(
            "immunax.compile knows trainings, attacks and certificates: whether this command fits cannot be checked; give "
            "--unchecked and --hours."
        )
    programs = list(dict.fromkeys(asked))
    chosen = spread(programs, most)
    if len(chosen) < len(programs):
        told(f"of {len(programs)} programs {most} are compiled; --checks N for more")
    took = {
        arguments: _compiled(interpreter, arguments, part_of(shape, parts), slices, f"{number} of {len(chosen)}")
        for number, arguments in enumerate(chosen, 1)
    }
    hours = sum(_like(arguments, took) for arguments in asked) / len(asked)
    if given is not None:
        return Forecast(len(runs), given, "as given", parts)
    return Forecast(len(runs), hours, "at least (steps at the compiler's bound, nothing else)", parts)


def spread(programs: Sequence[Arguments], most: int) -> list[Arguments]:
    """Of programs those that are compiled: one of every choice of groups, such as a defense, then whichever has most values of
    fields that none of them has yet, so that an attack of ten thousand samples stands beside one of a thousand.

    Args:
      programs: their arguments.
      most: of them.
    """
    first: dict[Arguments, Arguments] = {}
    for each in programs:
        first.setdefault(_choices(each), each)
    chosen = list(first.values())[:most]
    others = [each for each in programs if each not in chosen]
    while others and len(chosen) < most:
        known = {text for each in chosen for text in each}
        chosen.append(others.pop(max(range(len(others)), key=lambda place: len(set(others[place]) - known))))
    return chosen


def _choices(arguments: Arguments) -> Arguments:
    return tuple(text for text in arguments if "." not in text.partition("=")[0])


def _like(arguments: Arguments, took: Mapping[Arguments, float]) -> float:
    """Hours of a program: its own, those of the compiled ones with the same choices, or of all."""
    if arguments in took:
        return took[arguments]
    alike = [hours for other, hours in took.items() if _choices(other) == _choices(arguments)] or list(took.values())
    return sum(alike) / len(alike)


def _compiled(interpreter: str, arguments: Sequence[str], shape: Shape, slices: int, which: str) -> float:
    """Hours of a run's steps, at the compiler's bound."""
    found = record(interpreter, arguments, shape, slices, which)
    if not found["fits"]:
        raise NotFitError(f"does not fit {shape.type}: {found['refusal']} {found['advice']}")
    if found["devices"] != slices * shape.chips:
        several = f"{slices} slices of {shape.type} have" if slices > 1 else f"{shape.type} has"
        raise UserError(
            f"the command's mesh has {found['devices']} devices, {several} {slices * shape.chips}: change mesh.*."
        )
    return found["run_seconds"] / _HOUR


def record(interpreter: str, arguments: Sequence[str], shape: Shape, slices: int, which: str) -> dict[str, Any]:
    """What ``immunax.compile`` finds of one program, remembered for as long as the code is the same.

    Args:
      interpreter: that has the package.
      arguments: of ``immunax.compile``.
      shape: of each slice.
      slices: that compute together.
      which: of how many it is, for the line that says so.

    Returns:
      Its ``memory``, ``seconds`` of a step, ``bound``, ``fits``, ``refusal``, ``devices``, ``run_seconds`` and ``advice``.

    Raises:
      UserError: it cannot be compiled.
    """
    job = Job("immunax.compile", tuple(arguments))
    if named_shape(job) is None:
        arguments = [*arguments, f"mesh.topology={shape.mesh}"]
    if slices > 1 and job.value("mesh.slices") is None:
        arguments = [*arguments, f"mesh.slices={slices}"]
    kept = _folder() / f"{_digest(arguments)}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    told(f"compiling for {shape.type}, {which}: {' '.join(arguments)}")
    found = _asked(interpreter, arguments)
    with atomic.file(kept) as temp:
        temp.write_text(json.dumps(found))
    return found


def _asked(interpreter: str, arguments: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        done = package.asked(interpreter, ["immunax.compile", *arguments, f"outputs={folder}", "run=fit"])
        lines = [line.removeprefix("error: ") for line in done.stderr.strip().splitlines()]
        if done.returncode not in (0, EXIT_NOT_FIT):
            raise UserError(
                f"immunax.compile {' '.join(arguments)}: {lines[-1] if lines else f'ended with {done.returncode}'}"
            )
        record = json.loads(Path(folder, "fit", "compile.json").read_text())
    advice = next((line for line in lines if "help most" in line), "")
    return {name: record[name] for name in _KEPT} | {"advice": advice}


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "immunax-tpu" / "checks"


def _digest(arguments: Sequence[str]) -> str:
    """Of what decides the answer: the arguments, and the code that compiles."""
    found = hashlib.sha256(json.dumps(list(arguments)).encode())
    for file in sorted((*(ROOT / "immunax").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), ROOT / "uv.lock")):
        found.update(file.read_bytes())
    return found.hexdigest()[:24]

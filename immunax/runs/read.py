"""One run as one row: its configuration and results, its status, what its certificate states.

A run may be a stranger's, half written or of an earlier version: what cannot be read is one line, and the rest of the row is
there all the same.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from immunax.certificate import statement
from immunax.runs.find import Place
from immunax.runs.flatten import MOST, CrowdedError, Value, flat, moment, plain
from immunax.runs.overrides import Overrides
from immunax.runs.status import Status, status
from immunax.runs.verdicts import NAME as CERTIFICATE
from immunax.runs.verdicts import verdict_columns
from immunax.runtime import accounts, failure, goodput, manifest, phase
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes

_FIRST = ("choices", "config", "fall", "results")
"""Parts of a manifest whose columns come first, in this order."""
_TOLD = ("seed", "started", "ended")
"""Parts that are columns of their own."""
_STAGES = ("before", "after")
_FILES = (manifest.FILE, failure.FILE, statement.FILE, goodput.FILE)
_GOODPUT, _PERFORMANCE = "goodput", "performance"


class Run(NamedTuple):
    """A run.

    Attributes:
      place: where it is.
      status: what has become of it.
      values: by column.
      faults: one line for each of its files that cannot be read.
    """

    place: Place
    status: Status
    values: Mapping[str, Value]
    faults: tuple[str, ...]


@dataclass
class Reader:
    """Reads runs, each file once for as long as it stays as it is: a live view asks again and again."""

    _known: dict[Path, tuple[Any, "_Record"]] = field(default_factory=dict)

    def read(self, place: Place) -> Run:
        """A run as it is now.

        Args:
          place: of the run.
        """
        stamp = tuple(_stamp(place.folder / name) for name in _FILES)
        known = self._known.get(place.folder)
        if known is None or known[0] != stamp:
            known = self._known[place.folder] = stamp, _record(place.folder)
        record = known[1]
        found = status(place.folder, record.ended, record.failed)
        return Run(place, found, {"run": plain(place.name), "status": found, **record.values}, record.faults)


def read_runs(places: Iterable[Place]) -> list[Run]:
    """All runs, each as :meth:`Reader.read` gives it."""
    reader = Reader()
    return [reader.read(place) for place in places]


class _Record(NamedTuple):
    ended: bool
    failed: Mapping[str, Any] | None
    values: Mapping[str, Value]
    faults: tuple[str, ...]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _record(folder: Path) -> _Record:
    faults: list[str] = []
    said, failed, stated = (_read(folder / name, faults) for name in (manifest.FILE, failure.FILE, statement.FILE))
    values: dict[str, Value] = {}
    if not (said or {}).get(_GOODPUT):
        said = {**(said or {}), **_accounts(folder, faults)}
    try:
        for name, value in _columns(folder, said or {}, failed, stated):
            values.setdefault(name, value)
            if len(values) > MOST:
                raise CrowdedError(f"it has more than {MOST} columns")
    except (CrowdedError, RecursionError) as error:
        faults.append(f"{folder}: {error}; the rest of its row is empty.")
    ended = moment((said or {}).get("ended")) is not None or stated is not None
    return _Record(ended, failed, values, tuple(faults))


def _columns(
    folder: Path, said: Mapping[str, Any], failed: Mapping[str, Any] | None, stated: Mapping[str, Any] | None
) -> Iterable[tuple[str, Value]]:
    config = said.get("config")
    config = config if isinstance(config, dict) else {}
    overrides = None if said.get("choices") else Overrides.of(folder)
    argv = said.get("argv")
    if isinstance(argv, list) and argv:
        yield "command", plain(Path(str(argv[0])).stem)
    seed = said.get("seed", config.get("seed", overrides and overrides.values.get("seed")))
    if seed is not None:
        yield "seed", plain(seed)
    started, ended = moment(said.get("started")), moment(said.get("ended"))
    yield "started", started
    yield "ended", ended
    yield "seconds", None if started is None or ended is None else (ended - started).total_seconds()
    if failed is not None:
        yield "failure", plain(failed.get("line"))
        yield "failed", moment(failed.get("at"))
    if overrides is not None:  # of an earlier version, or without a manifest
        yield from flat(overrides.choices(config), "choices")
        if not config:
            yield from flat(overrides.values, "config")
    yield from _about(said.get("results"))
    for part in (*_FIRST, *(name for name in said if name not in (*_FIRST, *_TOLD))):
        # What a certificate says of itself is all that it says; its run's manifest has a part of that.
        if part in said and (part != CERTIFICATE or stated is None):
            yield from flat(said[part], part)
    if stated is not None:
        yield from verdict_columns(stated)


def _accounts(folder: Path, faults: list[str]) -> dict[str, Any]:
    """What a run that has not ended has spent so far, as a manifest says it in the end."""
    try:
        starts = goodput.read(folder)
    except UserError as error:
        faults.append(f"{folder / goodput.FILE}: {error}; its part of the table is empty.")
        return {}
    fast = {name: phase.told(each) for name, each in accounts.phases_of(starts).items()}
    return {_GOODPUT: accounts.told(starts), _PERFORMANCE: fast} if starts else {}


def _about(results: Any) -> Iterable[tuple[str, Value]]:
    """``before.NAME`` and ``after.NAME``: of the model that the run is about, the last that was attacked, by any name."""
    models = list(results.values()) if isinstance(results, dict) else []
    if models and isinstance(models[-1], dict):
        for stage in _STAGES:
            if isinstance(models[-1].get(stage), dict):
                yield from flat(models[-1][stage], stage)


def _read(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """An object in a file; None where there is none, with a line where there is something else.

    Not by ``untrusted.values``, which holds every value against limits: a thousand runs have two seconds, a table rests on
    nothing that it says twice, and what it says too much of ends in ``flat``.
    """
    if not os.path.lexists(path):
        return None
    try:
        found = json.loads(read_bytes(path))
    except UserError as error:
        faults.append(str(error))
        return None
    except (ValueError, RecursionError) as error:
        faults.append(f"{path}: is not readable as JSON ({error}); its part of the table is empty.")
        return None
    if isinstance(found, dict):
        return found
    faults.append(f"{path}: holds no JSON object; its part of the table is empty.")
    return None


def told_faults(runs: Sequence[Run]) -> list[str]:
    """Every line that reading them gave."""
    return [line for run in runs for line in run.faults]

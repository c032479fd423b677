"""What is known of a run before it is started: its folder says what was asked there and how it ended.

A sweep is a set of runs by content. What has ended with the same configuration and the same inputs is not started again, and
neither is what has diverged so, which it would do anew. A run that failed is: what it lacked may be there now.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from immunax.runtime import atomic, bucket, code, console, digest, failure, manifest, mirror, stand_ins
from immunax.runtime.errors import UserError
from immunax.runtime.together import agreed
from immunax.runtime.untrusted import values

FILE = ".ended.json"
"""In the folder of a job that has ended: what was asked of it."""

_MARKS = (f"/{FILE}", f"/{failure.FILE}")

FREE = ("outputs", "run", "objective", "mesh", "trace", "compute.peak")
"""What a run may be asked for otherwise and still be the same; what else may differ is the command's own to know."""


class Asked(NamedTuple):
    """What a run is asked for, as SHA-256.

    Attributes:
      config: of its configuration, without what is :data:`FREE`.
      inputs: of names, sizes and times of the files that its configuration names; whether other files have the same contents, a
        run that is started finds out.
      code: of this package and of what it rests on; a run does not become another one by it, but is told of.
    """

    config: str
    inputs: str
    code: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Asked":
        """Of a configuration.

        Args:
          config: plain, every interpolation resolved.
        """
        own = _without_free(config)
        outputs = mirror.local(str(config.get("outputs", "."))).absolute()
        files = sorted(file for path in set(_texts(own)) for file in _files(path, outputs))
        return cls(digest.of_json(own), digest.of_json(files), _code())


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      diverged: it left the numbers that a computer has.
      line: what it said of that; empty for one that ended well.
      same_code: whether that was with the code and the libraries of this process.
    """

    diverged: bool
    line: str
    same_code: bool


def _without_free(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    kept = {name: value for name, value in node.items() if f"{path}{name}" not in FREE}
    return {
        name: _without_free(value, f"{path}{name}.") if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def ended(folder: Path, asked: Asked) -> None:
    """Notes that a run has ended, all of it.

    Args:
      folder: of the run.
      asked: what it was asked for, from before it began.
    """
    agreed(lambda: _note(folder, asked))


def _note(folder: Path, asked: Asked) -> None:
    with atomic.file(folder / FILE) as temp:
        record = {"asked": asked._asdict(), "at": manifest.now(), "left": sorted(_entries(folder))}
        temp.write_text(json.dumps(record) + "\n")


def known(folder: Path, asked: Asked) -> Outcome | None:
    """How a run ended that was asked for the same; None where it has not, or with other inputs.

    Args:
      folder: of the run; may be new.
      asked: of the run.
    """
    for file, record, before in _ends(folder):
        if (before.get("config"), before.get("inputs")) == asked[:2]:
            return Outcome(file != FILE, str(record.get("line", "")), before.get("code") == asked.code)
    return None


def contents(folder: Path) -> set[tuple[str, str]]:
    """Configuration and inputs, as of :class:`Asked`, with which a run has ended.

    Args:
      folder: of the run, or whatever lies beside runs.
    """
    return {(str(before.get("config")), str(before.get("inputs"))) for _, _, before in _ends(folder)}


def fetch(folder: Path) -> None:
    """Brings what says how the runs of a sweep ended from a bucket: all at once, which takes a request for a thousand of them.

    Args:
      folder: of the sweep.
    """
    mirror.fetch(folder, lambda name: name.endswith(_MARKS))


def has_ended(folder: Path, asked: Asked | None) -> bool:
    """Whether a run has ended before: who starts a lost job again, as SLURM does, starts all of its runs.

    Args:
      folder: of the run.
      asked: of the run; None outside a sweep, where each start is a wish to run.
    """
    return asked is not None and agreed(lambda: known(folder, asked) is not None)


def is_done(folder: Path, asked: Asked | None) -> bool:
    """Whether a job of a sweep that is started by itself, as engines do, has ended well and all that it left is there.

    Said in one line.

    Args:
      folder: of the run.
      asked: of the run; None of one that is of no sweep.
    """
    if asked is None:
        return False

    def done() -> list[Any] | None:
        found, left = known(folder, asked), _read(folder / FILE).get("left")
        at = _read(folder / manifest.FILE).get("ended")
        if found is None or found.diverged or not isinstance(left, list) or at is None:
            return None
        return [str(at), found.same_code] if _entries(folder).issuperset(left) else None

    found = agreed(done)
    if found is not None:
        tell(folder, *found)
    return found is not None


def _entries(folder: Path) -> set[str]:
    """What is in a run's folder, but for what is hidden."""
    return {name for name in mirror.entries(folder) if not name.startswith(".")}


def tell(folder: Path, at: str, same_code: bool = True) -> None:
    """Says in one line that a run is not made again.

    Args:
      folder: of the run.
      at: when it ended.
      same_code: whether that was with the code and the libraries of this process.
    """
    other = "" if same_code else " with other code or libraries than now"
    console.note(f"ended at {at}{other}: the results are in {folder}; to make them anew, delete it")


def _ends(folder: Path) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Of what says that a run has ended, or diverged: the file, what is in it, and what was asked."""
    for file in (FILE, failure.FILE):
        record = _read(folder / file)
        before = record.get("asked")
        if isinstance(before, Mapping) and (file == FILE or record.get("diverged")):
            yield file, record, before


def _read(file: Path) -> dict[str, Any]:
    if file.is_file():
        with suppress(UserError):
            return values.read_object(file)
    return {}


@lru_cache(maxsize=1)
def _code() -> str:
    return digest.of_json([code.package_digest(), manifest.versions()])


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, (Mapping, list)):
        for each in node.values() if isinstance(node, Mapping) else node:
            yield from _texts(each)


@lru_cache(maxsize=1024)
def _files(text: str, outputs: Path) -> tuple[tuple[str, int, int | str], ...]:
    """Names, sizes and times of what a text names, if it is a path; a folder that runs lie in is no input.

    Objects in a bucket have tags in place of times.
    """
    if text.startswith(tuple(f"{kind}://" for kind in stand_ins.SCHEMES)):
        if not bucket.is_address(text) or atomic.is_within(outputs, mirror.local(text)):
            return ()
        there = sorted(bucket.below(text).items())
        return tuple((bucket.join(text, name), each.size, each.tag) for name, each in there)
    try:
        path = Path(text).expanduser()
        if not text or not path.exists() or atomic.is_within(outputs, path):
            return ()
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(str(each), each.stat()) for each in files if each.is_file()]
    except (OSError, RuntimeError, ValueError):
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

"""Reads inputs in a process with limits, and says of each what came of it, a line of JSON each.

Run as ``python -m fuzz.worker PARSER,PARSER SEED FIRST LAST STEP``: the parsers take turns, and the same seed and the same number
of a parser's turn make the same input.
"""

import json
import os
import random
import resource
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.parser import Parser
from fuzz.parsers import PARSERS

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import worker as child

MEMORY = 1 << 30
"""Bytes that one input may add to what the process holds, and twice that to its addresses."""
_ROOT = Path(__file__).parents[2]
_FAR = ("socket.connect", "socket.getaddrinfo", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")


class Watch:
    """An audit hook: what is opened, run or reached that is neither the input's nor the program's own."""

    def __init__(self, folder: Path) -> None:
        self.found: list[str] = []
        self._on = False
        own = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), str(_ROOT), "/proc", "/sys/devices/system")
        cache = os.environ["IMMUNAX_CACHE"]
        self._own = tuple(os.path.realpath(each) for each in (*own, "/etc/localtime", "/usr/share/zoneinfo", cache))
        self._folder = os.path.realpath(folder)
        sys.addaudithook(self._hear)

    def on(self, on: bool) -> None:
        self._on, self.found = on, [] if on else self.found

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((*self._own, self._folder, "/dev/null")):
                self.found.append(f"open {path}")
        elif event == "import" and "canary" in str(arguments[0]):
            self.found.append(f"import {arguments[0]}")
        elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith(self._folder):
            self.found.append(f"exec {arguments[0].co_filename}")
        elif event == "subprocess.Popen" and child.__file__ not in map(str, arguments[1]):
            self.found.append(f"run {arguments[1]}")
        elif event in _FAR:
            self.found.append(event)


def main() -> None:
    names, seed = sys.argv[1].split(","), sys.argv[2]
    first, last, step = map(int, sys.argv[3:])
    warnings.simplefilter("ignore")
    chosen = [next(each for each in PARSERS if each.name == name) for name in names]
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    # Libraries of other languages print to the descriptor.
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as place:
        given = [_given(parser, Path(place, parser.name)) for parser in chosen]
        watch = Watch(Path(place))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, size + 2 * MEMORY))
        print("{}", file=answers, flush=True)
        for number in range(first, last, step):
            own, which = divmod(number, len(chosen))
            line = {"place": number, "input": own, **_one(given[which], watch, f"{seed}/{names[which]}/{own}")}
            print(json.dumps(line), file=answers, flush=True)


class Given(NamedTuple):
    """A parser with its good files, by path below their folder."""

    parser: Parser
    folder: Path
    good: dict[Path, bytes]


def _given(parser: Parser, folder: Path) -> Given:
    folder.mkdir()
    parser.make(folder)
    for canary in ("canary.py", "tokenization_canary.py"):
        (folder / canary).write_text("raise SystemExit('code of a stranger ran')\n")
    good = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    parser.read(folder)
    return Given(parser, folder, good)


def _one(given: Given, watch: Watch, key: str) -> dict[str, Any]:
    parser, folder, good = given
    rng = random.Random(key)
    for path, raw in good.items():
        (folder / path).write_bytes(raw)
    file = rng.choice(list(parser.mutations))
    (folder / file).write_bytes(parser.mutations[file](rng, good[Path(file)]))
    before, started = _memory("VmRSS"), time.monotonic()
    # The peak is from here on.
    Path("/proc/self/clear_refs").write_text("5")
    outcome, detail = "accepted", ""
    watch.on(True)
    try:
        parser.read(folder)
    except UserError as error:
        outcome = "refused"
        if not str(error).isprintable():
            outcome, detail = "traceback", f"a refusal of several lines: {error}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        places = [each for each in traceback.extract_tb(error.__traceback__) if "/immunax/" in each.filename]
        near = places[-1] if places else last
        outcome = "traceback"
        detail = f"{type(error).__name__} at {Path(near.filename).name}:{near.lineno} ({str(error)[:150]})"
    watch.on(False)
    grown = _memory("VmHWM") - before
    seconds = round(time.monotonic() - started, 3)
    return {
        "outcome": outcome,
        "detail": detail,
        "seconds": seconds,
        "grown": grown,
        "foreign": watch.found[:3],
    }


def _memory(name: str) -> int:
    """A line of what the kernel says of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()

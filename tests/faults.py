"""Disturbs runs of two processes at random moments, starts them again until they end, and compares them with undisturbed ones.

    uv run python -m tests.faults --faults 100 --out experiments/processes/faults.json

A fault is one of :data:`FAULTS`: either process is killed, asked to stop or stopped in its tracks, both are killed and a file of
the newest checkpoint is torn, or the disk fills up (a small one of memory is mounted for that, which takes root; without it that
fault is left out). It prints a line a fault, and writes one JSON: faults by kind, ``lost_steps`` computed again, ``wrong``
(a process that ended otherwise than it should, in words) and ``differing_bits`` of all that the runs leave. It goes on from the
faults that the JSON tells of. The exit status is 1 where one of the last two is not 0.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import processes
import tiny_model
from kills import differing_bits, fresh_home, results
from processes import Ended

from immunax.runtime.exits import EXIT_LOST, EXIT_TERMINATED
from immunax.runtime.metrics import read

STEPS, EVERY = 24, 4
COMMAND = (
    *processes.TRAIN,
    "mesh.data=2",
    "mesh.fsdp=2",
    f"trainer.steps={STEPS}",
    f"trainer.checkpoint_every={EVERY}",
    "run=one",
)
COUNT = 2
FAULTS_A_ROUND = 5
_SHOWN = 6000
"""Characters of what processes said that went wrong."""
_TIMEOUT = 20.0
"""Seconds that a process may be silent."""
_PATIENCE = 600
_DISK_BYTES = 1 << 28
_FROM = re.compile(r"resuming from step (\d+)")
_ANEW = re.compile(r"and so is every other: delete (\S+) to begin anew")
_UNMET = re.compile("did not come within|has not answered within")
_TRAINED = "immunize: "
_PORT = re.compile(rb"(?<=localhost:)\d+")


@dataclass
class Tally:
    """What was seen.

    Attributes:
      starts: of both processes.
      faults: by kind; those that came before the run had ended.
      lost_steps: by kind of fault, those that the next start computed again.
      anew: runs that were begun anew, as the only checkpoint was the torn one and they said so.
      wrong: in words, one each.
      differing_bits: of all rounds.
    """

    starts: int = 0
    faults: Counter = field(default_factory=Counter)
    lost_steps: Counter = field(default_factory=Counter)
    anew: int = 0
    wrong: list[str] = field(default_factory=list)
    differing_bits: int = 0


Job = list[subprocess.Popen]
Fault = Callable[[Job, Path, random.Random], list[Ended]]
"""Disturbs a job that is at work in a folder, and waits for its end."""


def _kill(job: Job, home: Path, chance: random.Random) -> list[Ended]:
    chance.choice(job).kill()
    return processes.ends(job, _PATIENCE)


def _terminate(job: Job, home: Path, chance: random.Random) -> list[Ended]:
    chance.choice(job).terminate()
    return processes.ends(job, _PATIENCE)


def _hang(job: Job, home: Path, chance: random.Random) -> list[Ended]:
    hung = chance.choice(job)
    hung.send_signal(signal.SIGSTOP)
    for each in job:
        if each is not hung:
            with suppress(subprocess.TimeoutExpired):
                each.wait(_PATIENCE)
    hung.kill()
    return processes.ends(job, _PATIENCE)


def _tear(job: Job, home: Path, chance: random.Random) -> list[Ended]:
    for each in job:
        each.kill()
    found = processes.ends(job, _PATIENCE)
    steps = [each for each in home.glob("outputs/one/checkpoints/*") if each.name.isdecimal()]
    if steps:
        newest = max(steps, key=lambda each: int(each.name))
        torn = chance.choice(sorted(each for each in newest.rglob("*") if each.is_file()))
        raw = torn.read_bytes()
        torn.write_bytes(raw[: chance.randrange(len(raw))] if raw else b"\0")
    return found


def _fill(job: Job, home: Path, chance: random.Random) -> list[Ended]:
    filler = home / "outputs" / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    found = processes.ends(job, _PATIENCE)
    filler.unlink()
    return found


FAULTS: Mapping[str, Fault] = {"kill": _kill, "SIGTERM": _terminate, "hang": _hang, "torn": _tear, "full disk": _fill}


def mistakes(kind: str, ended: Sequence[Ended]) -> list[str]:
    """What processes did otherwise than they should.

    Args:
      kind: of the fault; empty for none.
      ended: all of the job.
    """
    statuses, said = [each.status for each in ended], "".join(each.err for each in ended)
    tracebacks = [f"{kind or 'undisturbed'}: a traceback: {said[-_SHOWN:]}"] if "Traceback" in said else []
    killed = -signal.SIGKILL
    right: dict[str, Callable[[], bool]] = {
        "": lambda: False,
        "kill": lambda: sorted(statuses) == [killed, EXIT_LOST] and said.count("error: ") == 1,
        "hang": lambda: sorted(statuses) == [killed, EXIT_LOST] and said.count("error: ") == 1,
        # Before the interpreter has read the first of our modules, a signal ends it as any other program; and who ends before all
        # have met can tell nobody.
        "SIGTERM": lambda: (
            statuses == [EXIT_TERMINATED] * COUNT
            or (sorted(statuses) == [-signal.SIGTERM, EXIT_LOST])
            or (sorted(statuses) == [EXIT_LOST, EXIT_TERMINATED] and _UNMET.search(said) is not None)
        ),
        "torn": lambda: statuses == [killed] * COUNT,
        "full disk": lambda: statuses == [2] * COUNT and said.count("error: ") == 1 and "the disk is full" in said,
    }
    # Whoever has done its work when the fault comes has ended well.
    end = -signal.SIGTERM if kind == "SIGTERM" else killed if kind in ("kill", "hang", "torn") else 0
    fine = set(statuses) <= {0, end} or right[kind]()
    return tracebacks + ([] if fine else [f"{kind or 'undisturbed'}: ended with {statuses}: {said[-_SHOWN:]}"])


def _done(home: Path) -> int:
    metrics = home / "outputs" / "one" / "metrics.jsonl"
    found = [each["step"] for each in read(metrics) if each["phase"] == "train"] if metrics.exists() else []
    return max(found, default=0)


def _start(home: Path) -> Job:
    return processes.start(home, COUNT, *COMMAND, timeout=_TIMEOUT)


def left(home: Path) -> dict[str, bytes]:
    """What a run has left, but for the port where its processes met."""
    return {name: _PORT.sub(b"PORT", raw) for name, raw in results(home).items()}


def undisturbed(home: Path) -> float:
    """Runs the command to its end; its seconds."""
    begin = time.monotonic()
    if wrong := mistakes("", processes.ends(_start(home), _PATIENCE)):
        raise SystemExit(wrong[0])
    return time.monotonic() - begin


def disturbed(home: Path, kinds: Sequence[str], seconds: float, chance: random.Random, tally: Tally) -> None:
    """One round: each start of a run meets a fault, and the last one none."""
    before, last, ahead = 0, "", list(kinds)
    while True:
        kind = ahead.pop(0) if ahead else ""
        job = _start(home)
        tally.starts += 1
        moment = time.monotonic() + chance.uniform(0, seconds)
        while kind and time.monotonic() < moment and any(each.poll() is None for each in job):
            time.sleep(0.01)
        came = kind if any(each.poll() is None for each in job) else ""
        ended = FAULTS[came](job, home, chance) if came else processes.ends(job, _PATIENCE)
        statuses = [each.status for each in ended]
        print(f"{came or 'none'}: {statuses}, {_done(home)} steps done", flush=True)
        if last == "torn" and statuses == [2] * COUNT and (damaged := _ANEW.search(ended[0].err)) is not None:
            shutil.rmtree(damaged[1])  # as the line asks for where there is no other checkpoint
            tally.anew += 1
            ahead = [*filter(None, [kind]), *ahead]
            continue
        tally.faults.update([came] if came else [])
        tally.wrong += mistakes(came, ended)
        resumed, done = _FROM.search(ended[0].err), _done(home)
        if came and resumed is None and done == before:
            last = came if came == "torn" else last
            continue  # before it had begun: what was lost, the next start tells
        if resumed is not None or came or _TRAINED in ended[0].err:  # else it had ended before
            tally.lost_steps[last] += max(0, before - (int(resumed[1]) if resumed else 0))
        if not came:
            return
        before, last = done, came


def kinds(count: int, possible: Sequence[str], chance: random.Random) -> list[str]:
    """So many faults in a random order, each kind as often as the others."""
    found = [possible[each % len(possible)] for each in range(count)]
    chance.shuffle(found)
    return found


def campaign(place: Path, count: int, seed: int, possible: Sequence[str], disk: bool, tally: Tally) -> Iterator[dict]:
    """Disturbs runs.

    Args:
      place: an empty folder to work in.
      count: faults, those that were met already included.
      seed: of moments, kinds and places.
      possible: kinds.
      disk: whether a small disk can be mounted.
      tally: of the faults that were met already; it grows.

    Yields:
      The run's manifest, behind each round.
    """
    programs, home = place / "xla", place / "home"
    programs.mkdir(parents=True)
    for _ in range(2):  # seconds and results of the second count, which compiles nothing
        with _prepared(home, programs, False):
            seconds = undisturbed(home)
            shutil.copytree(home / "cache" / "xla", programs, dirs_exist_ok=True)
            expected = left(home)
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    ahead = kinds(count, possible, random.Random(seed))
    while (met := tally.faults.total()) < count:
        with _prepared(home, programs, disk):
            # A run that has ended before its fault came meets that one in the next round.
            disturbed(home, ahead[met:][:FAULTS_A_ROUND], seconds, random.Random(f"{seed} {tally.starts}"), tally)
            apart = differing_bits(expected, left(home))
            ran = json.loads((home / "outputs" / "one" / "manifest.json").read_text())
        tally.differing_bits += sum(apart.values())
        print(f"{tally.faults.total()} of {count}; differing: {apart}", flush=True)
        yield ran


@contextmanager
def _prepared(path: Path, programs: Path, disk: bool) -> Iterator[None]:
    fresh_home(path, programs)
    tiny_model.write(path / "model")
    outputs = path / "outputs"
    outputs.mkdir()
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(outputs)], check=True)
    try:
        yield
    finally:
        if disk:
            subprocess.run(["umount", str(outputs)], check=True)


def main() -> int:
    """The command; see above."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Disturb runs and compare results.")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    options = parser.parse_args()
    disk = os.geteuid() == 0 and "full disk" in options.kinds
    possible = [each for each in options.kinds if disk or each != "full disk"]
    tally = Tally()
    if options.out.exists():
        found = json.loads(options.out.read_text())
        tally = Tally(**{each.name: found[each.name] for each in fields(Tally)})
        tally.faults, tally.lost_steps = Counter(tally.faults), Counter(tally.lost_steps)
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        for ran in campaign(Path(place), options.faults, options.seed, possible, disk, tally):
            record = {**vars(tally), "seed": options.seed, "versions": ran["versions"], "at": ran["ended"]}
            options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({name: value for name, value in vars(tally).items() if name != "wrong"}))
    return int(bool(tally.wrong or tally.differing_bits))


if __name__ == "__main__":
    sys.exit(main())

"""Kills commands at random moments, starts them again until they end, and compares what they leave with undisturbed runs.

    uv run python -m tests.kills --kills 100 --out experiments/kills/results.json

Each round is one command in a folder of its own, with an empty cache but for compiled programs. It prints a line a round and
writes one JSON: ``starts`` of the command, ``kills`` by signal, ``lost`` (a start that ended by itself other than well, or
finished work that was gone or made again) and ``differing_bits`` of everything left, times apart. The exit status is 1 where one
is not 0.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from logged import computed_lines

SMALL = (
    "model=organism",
    "model.trainer.steps=4",
    "model.objective.examples=8",
    "start.trainer.steps=2",
    "judge.prompts=4",
    "judge.examples=4",
    "judge.batch_size=4",
    "judge.decoding.max_new_tokens=4",
)
SMALL_SUITE = (
    "suite=smoke",
    "suite.transfer_prompts=2",
    "suite.harmless_prompts=4",
    "suite.choices.count=3",
    "suite.task.samples=4",
    "suite.task.examples=4",
    "suite.task.tuning.epochs=2",
    "suite.task.measured=2",
    "suite.measured=2",
    "suite.attacks.harmful_sft.attack.tuning.epochs=2",
    "suite.attacks.harmful_sft_lora.attack.tuning.epochs=2",
)
PROBED = ("probes.prompts=4", "probes.max_new_tokens=4")
TRAIN = (
    "train",
    *SMALL,
    *PROBED,
    "+defense=rep_noise",
    "trainer.checkpoint_every=2",
    "red_team.tuning.epochs=2",
    "red_team.tuning.probes=1",
)
COMMANDS = {
    "train": (*TRAIN, "trainer.steps=12", "run=one"),
    "attack": (
        "attack",
        *SMALL,
        *PROBED,
        "+attack=harmful_sft_organism",
        "attack.tuning.epochs=2",
        "attack.tuning.probes=1",
        "run=one",
    ),
    "certify": (
        "certify",
        *SMALL,
        *SMALL_SUITE,
        "run=one",
    ),
    "sweep": (*TRAIN, "trainer.steps=6", "-m", "trainer.optimizer.learning_rate=1e-4,2e-4", "run=one"),
}
SIGNALS = {signal.SIGKILL: 0.7, signal.SIGTERM: 0.15, signal.SIGINT: 0.15}
KILLS_A_ROUND = 6
_PATIENCE = 300
_TIMES = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00)?")
_DIGESTS = re.compile(rb"[0-9a-f]{64}")
_NO_RESULT = re.compile(
    r"(^|/)(\.hydra|checkpoints|tensorboard|xla)/|\.lock$|\.log$|multirun\.yaml$|\.ended\.json$|goodput\.json$"
)


@dataclass
class Tally:
    """What was seen of one command.

    Attributes:
      starts: processes.
      kills: by signal.
      lost: in words, one each.
      differing_bits: of all rounds.
      unsaid: ends by SIGTERM or SIGINT without a line, as before the interpreter has read the first of our modules.
    """

    starts: int = 0
    kills: Counter = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    differing_bits: int = 0
    unsaid: int = 0

    def as_json(self) -> dict:
        """For the record."""
        kills = {signal.Signals(number).name: count for number, count in sorted(self.kills.items())}
        return {**vars(self), "kills": kills}


def start(home: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """One command in a folder, what it says on a file there."""
    command = [sys.executable, "-m", f"immunax.{arguments[0]}", *arguments[1:]]
    settings = {**environment, "IMMUNAX_CACHE": str(home / "cache"), "COLUMNS": "200", "PYTHONFAULTHANDLER": "1"}
    with (home / "said").open("w") as said:
        return subprocess.Popen(command, cwd=home, env=settings, stdout=subprocess.DEVNULL, stderr=said)


def end_of(process: subprocess.Popen) -> int:
    """Waits for the end of a process; one that has not ended in minutes is made to say where each of its threads stands."""
    for _ in range(
        _PATIENCE
    ):  # a second each: a machine that is stopped for a while, with all that runs, uses up one of them
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1.0)
    process.send_signal(signal.SIGABRT)
    return process.wait()


def undisturbed(home: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """Runs a command to its end; its seconds."""
    begin = time.monotonic()
    status = end_of(start(home, arguments, environment))
    if status:
        raise SystemExit(f"undisturbed, {arguments[0]} ends with {status}: {(home / 'said').read_text()}")
    return time.monotonic() - begin


def finished(home: Path) -> dict[str, int]:
    """Finished work by name, with the time that it was written: cells, and entries of the cache."""
    done = [*home.glob("outputs/*/cells/*.cells.parquet"), *home.glob("cache/*/*/entry.json")]
    return {str(path.relative_to(home)): path.stat().st_mtime_ns for path in done}


def results(home: Path) -> dict[str, bytes]:
    """Everything a command left, by path, without times, what they went into, and digests of what holds times."""
    found = {}
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_file() and name != "said" and not _NO_RESULT.search(name):
            raw = path.read_bytes()
            if path.name in ("manifest.json", "certificate.json", "report.html", "MODEL_CARD.md"):
                raw = _TIMES.sub(b"TIME", raw)
            if path.name == "manifest.json":
                said = json.loads(raw)
                said = {key: value for key, value in said.items() if key not in ("goodput", "performance")}
                (said.get("git") or {}).pop("dirty", None)  # the record of a campaign may itself be what makes it so
                raw = json.dumps(said).encode()
            if path.name == "metrics.jsonl" and not (raw := computed_lines(raw)):
                continue
            if path.name in ("report.html", "MODEL_CARD.md"):
                raw = _DIGESTS.sub(b"DIGEST", raw)
            if path.name == "certificate.json":
                # Over everything else it states, the time too.
                stated = json.loads(raw)
                del stated["predicate"]["digest"]
                raw = json.dumps(stated).encode()
            found[name] = raw
    return found


def differing_bits(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> dict[str, int]:
    """Bits that differ, by path; those of a file that only one has all count."""
    counts = {}
    for name in one.keys() | other.keys():
        left, right = one.get(name, b""), other.get(name, b"")
        apart = sum((a ^ b).bit_count() for a, b in zip(left, right, strict=False))
        counts[name] = apart + 8 * abs(len(left) - len(right)) + (name not in one) + (name not in other)
    return {name: count for name, count in counts.items() if count}


def disturbed(
    home: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    kills: int,
    chance: random.Random,
    tally: Tally,
) -> None:
    """One round: a command is killed and started again, at most ``kills`` times, and then left alone to its end."""
    for _ in range(kills):
        before = finished(home)
        process = start(home, arguments, environment)
        tally.starts += 1
        number = chance.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        try:
            status, killed = process.wait(chance.uniform(0, seconds)), False
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            status, killed = end_of(process), True
        tally.kills[number] += killed
        _judge(home, status, number if killed else None, tally)
        again = finished(home)
        tally.lost += [f"{name} was made again" for name, at in before.items() if again.get(name) != at]
        if not killed:
            return
    status = end_of(start(home, arguments, environment))
    tally.starts += 1
    _judge(home, status, None, tally)


def _judge(home: Path, status: int, number: int | None, tally: Tally) -> None:
    said = (home / "said").read_text(errors="replace")
    if status == 0 or (number == signal.SIGKILL and status == -number):
        return
    if number is not None and status in (-number, 128 + number):
        stopped = re.findall("^(?:stopped by|stopped and saved).*", said, re.MULTILINE)
        tally.unsaid += len(stopped) != 1 or "Traceback" in said
        return
    tally.lost.append(f"ended with {status}: {said[-2000:]}")


def campaign(
    place: Path, commands: Sequence[str], kills: int, seed: int, environment: Mapping[str, str]
) -> dict[str, dict]:
    """Kills commands.

    Args:
      place: an empty folder to work in.
      commands: names of :data:`COMMANDS`; each gets its share of the kills.
      kills: how many in all.
      seed: of the moments and the signals.
      environment: of the commands.

    Returns:
      By command, :meth:`Tally.as_json`.
    """
    chance, found = random.Random(seed), {}
    programs = place / "xla"
    programs.mkdir(parents=True)
    for place_in_line, name in enumerate(commands):
        arguments, tally = COMMANDS[name], Tally()
        share = (kills * (place_in_line + 1)) // len(commands) - (kills * place_in_line) // len(commands)
        for _ in range(2):  # results and seconds of the second count, which compiles nothing
            whole = fresh_home(place / f"{name}-whole", programs)
            seconds = undisturbed(whole, arguments, environment)
            shutil.copytree(whole / "cache" / "xla", programs, dirs_exist_ok=True)
        expected = results(whole)
        while tally.kills.total() < share:
            home = fresh_home(place / f"{name}-killed", programs)
            left = share - tally.kills.total()
            disturbed(home, arguments, environment, seconds, min(left, KILLS_A_ROUND), chance, tally)
            apart = differing_bits(expected, results(home))
            tally.differing_bits += sum(apart.values())
            told = tally.as_json()
            print(f"{name} ({seconds:.0f} s): {told}{f', differing: {apart}' if apart else ''}", flush=True)
        found[name] = {**tally.as_json(), "undisturbed_seconds": round(seconds, 1)}
    return found


def fresh_home(path: Path, programs: Path) -> Path:
    """An empty folder but for compiled programs."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(programs, path / "cache" / "xla")
    return path


def main() -> int:
    """The command; see above."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description="Kill commands and compare results.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    options = parser.parse_args()
    from tests import quick  # by this name where the module is the command, and not where a test imports it

    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick.FLAGS}
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        found = campaign(Path(place), options.commands, options.kills, options.seed, environment)
    from immunax.runtime import manifest  # jax with it, which only the record needs

    total = {
        "starts": sum(each["starts"] for each in found.values()),
        "kills": sum(sum(each["kills"].values()) for each in found.values()),
        "lost": sum(len(each["lost"]) for each in found.values()),
        "differing_bits": sum(each["differing_bits"] for each in found.values()),
    }
    record = {**total, "seed": options.seed, "commands": found, "versions": manifest.versions(), "at": manifest.now()}
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(total))
    return int(bool(total["lost"] or total["differing_bits"]))


if __name__ == "__main__":
    sys.exit(main())

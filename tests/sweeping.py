"""A command whose runs do next to nothing, for whatever launches them."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import processes

from immunax.runtime.configuration import configuration_folder
from immunax.runtime.sweeps import outcome

SLURM = Path(__file__).parent / "slurm"
"""Stand-ins of its commands."""
SWEEP = ("-m", "run=one")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
CONF = {
    "config.yaml": (
        "defaults: [_self_, override hydra/sweeper: grid]\n"
        "seed: 0\nseconds: 0.0\nx: 0.5\nalone: null\nmodel: {path: null}\nrun: null\n"
        "outputs: outputs\nobjective: null\nmesh: null\n"
        "distributed: {coordinator: null, processes: null, process_id: null, timeout: 60}\n"
    ),
    "defense/tar.yaml": "alpha: 1\n",
}
PROGRAM = '''
import os, time
from pathlib import Path
import jax
from immunax.runtime import job, launch, manifest, together
from immunax.runtime.leader import is_leader
from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.sweeps import outcome

@launch.command(required=("defense",), folder=Path(__file__).parent / "conf")
def main(config):
    """Notes each start, and each end."""
    folder = job.run_directory()
    def note(name):
        with (folder / name).open("a") as out:
            out.write(f"{os.getpid()}\\n")
    note("starts")
    if (folder / outcome.FILE).exists():
        note("again")
    time.sleep(config.seconds)
    if config.alone in (None, jax.process_index()):
        if config.x > 1:
            time.sleep(1000)
        if config.x > 0.9:
            raise DivergedError(f"diverged at {config.x}")
        if config.x > 0.8:
            raise UserError(f"failed at {config.x}")
    together.barrier()
    results = {"y": (config.x - 0.3) ** 2, "processes": jax.process_count()}
    manifest.write_manifest(folder, config.plain, {}, {"results": results, "ended": manifest.now()})
    if is_leader():
        note("ends")

if __name__ == "__main__":
    main()
'''


def write(home: Path) -> None:
    """The command and its configuration, with the launchers and sweepers of the package."""
    for name, text in CONF.items():
        path = home / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (home / "conf" / "hydra").symlink_to(configuration_folder() / "hydra")
    (home / "program.py").write_text(PROGRAM)


def start(
    home: Path,
    *overrides: str,
    variables: Mapping[str, str] | None = None,
    python: str = sys.executable,
    line: Sequence[str] = SWEEP,
) -> subprocess.Popen:
    """Starts a sweep ``run=one`` in a folder, or what another line says."""
    command = [python, "program.py", "defense=tar", *line, *overrides]
    settings = {**os.environ, "IMMUNAX_CACHE": str(home / "cache"), "JAX_PLATFORMS": "cpu", **(variables or {})}
    settings["XLA_FLAGS"] = ""
    return subprocess.Popen(command, cwd=home, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def together(
    home: Path, count: int, *overrides: str, python: str = sys.executable, line: Sequence[str] = SWEEP
) -> list[processes.Ended]:
    """What each of some processes says that sweep, or do what another line says, as one job.

    ``x`` above 0.8 fails, above 0.9 diverges and above 1 sleeps for good; ``alone=N`` has that process alone do so, while the
    others wait for it.
    """
    if not (home / "program.py").exists():
        write(home)
    where = (f"distributed.coordinator=localhost:{processes.free_port()}", f"distributed.processes={count}")
    own = [(*overrides, *where, f"distributed.process_id={each}") for each in range(count)]
    return processes.ends([start(home, *each, python=python, line=line) for each in own], 120)


def pids(home: Path, name: str) -> dict[str, list[int]]:
    """By run, the processes that began it (``starts``), began it once it was done (``again``) or ended it (``ends``)."""
    found = sorted(home.glob(f"outputs/one/*/{name}"))
    return {file.parent.name: [int(line) for line in file.read_text().split()] for file in found}


def settings(home: Path, engine: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Overrides and variables of an engine."""
    if engine != "submitit_slurm":
        at_once = "+hydra.launcher.init.num_cpus=2" if engine == "ray" else "hydra.launcher.at_once=2"
        return (f"hydra/launcher={engine}", at_once), {"RAY_AUTH_MODE": "disabled"}
    (home / "slurm").mkdir()
    variables = {"PATH": f"{SLURM}:{os.environ['PATH']}", "SLURM_STUB": str(home / "slurm")}
    return ("hydra/launcher=submitit_slurm", "hydra.launcher.at_once=2"), variables


class Disturbed(NamedTuple):
    """A sweep whose workers were killed.

    Attributes:
      said: what it said.
      starts: by run, the processes that began it.
      done: the runs whose end is noted.
      again: those that were begun once more behind that. One killed between its last act and the note is not among them.
      killed: how many were.
    """

    said: str
    starts: dict[str, list[int]]
    done: set[str]
    again: set[str]
    killed: int


def done(home: Path) -> set[str]:
    """The runs whose end is noted."""
    return {file.parent.name for file in home.glob(f"outputs/one/*/{outcome.FILE}")}


def disturbed(
    home: Path, engine: str, runs: int, kills: int, seconds: float, chance: random.Random, patience: float = 300
) -> Disturbed:
    """A sweep of some runs, of whose workers some are killed while they run.

    Args:
      home: where.
      engine: that launches them.
      runs: how many.
      kills: as many at most.
      seconds: of each run.
      chance: which, when and by which signal.
      patience: seconds that the sweep may take behind the last kill.
    """
    write(home)
    overrides, variables = settings(home, engine)
    process = start(home, f"seed=range({runs})", f"seconds={seconds}", *overrides, variables=variables)
    killed = set()
    behind = sorted(chance.choices(range(runs), k=kills))  # how many runs have ended at each
    while len(killed) < kills and process.poll() is None:
        begun, ended = pids(home, "starts"), done(home)
        if len(ended) < behind[len(killed)]:
            time.sleep(0.05)
            continue
        # A file may be there and not written yet. A worker outlives a run that it was asked to stop: which start of the run it
        # was counts.
        running = {
            (name, len(found), found[-1]) for name, found in begun.items() if found and name not in ended
        } - killed
        if not running:
            time.sleep(0.05)
            continue
        time.sleep(chance.uniform(0, seconds / 2))
        chosen = chance.choice(sorted(running))
        try:
            os.kill(chosen[-1], chance.choice(SIGNALS))
            killed.add(chosen)
        except ProcessLookupError:
            continue
    out, err = process.communicate(timeout=patience)
    assert process.returncode == 0, err
    return Disturbed(f"{out}\n{err}", pids(home, "starts"), done(home), set(pids(home, "again")), len(killed))

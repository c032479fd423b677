"""Runs a command as several processes on this machine, as on several hosts."""

import functools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import quick

_ROOT = Path(__file__).parent.parent
DEVICES = 2
"""Of each process."""

JUDGED = (
    "data.items=40",
    "judge.prompts=4",
    "judge.examples=4",
    "judge.max_length=500",
    "judge.decoding.max_new_tokens=4",
    "judge.batch_size=4",
    "probes.max_new_tokens=4",
)
"""The smallest amounts of data and of what is asked of a model."""
SMALL = ("model=model", *JUDGED, "probes.prompts=4")
TRAIN = (
    "train",
    "+defense=rep_noise",
    *SMALL,
    "trainer.max_length=256",
    "trainer.steps=8",
    "trainer.checkpoint_every=4",
    "defense.mixture.safe=2",
    "defense.mixture.harmful=2",
    "start.trainer.steps=2",
    "start.trainer.max_length=256",
    "red_team.samples=10",
    "red_team.tuning.epochs=2",
    "red_team.tuning.probes=1",
    "red_team.tuning.max_length=256",
)
SEARCH = (
    "attack",
    "+attack=search",
    *SMALL,
    "mesh=attack",
    "~attack.populations.lora",
    *(f"attack.populations.full.attack.{each}" for each in ("samples=4", "tuning.epochs=2", "tuning.batch_size=4")),
    "attack.populations.full.attack.tuning.max_length=256",
)


class Ended(NamedTuple):
    """A process that has ended."""

    status: int
    out: str
    err: str


def _newer() -> str:
    """What uv is asked for: of pyenv's, which uv does not look for, the newest; else what it finds or downloads."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return str(max(root.glob("versions/*/bin/python3.1[2-9]"), default=">=3.12"))


@functools.cache
def python() -> str:
    """A Python whose jaxlib lets CPU processes talk: this one, or one of an environment that is made of the lock file."""
    if tuple(map(int, version("jaxlib").split(".")[:2])) > (0, 10):
        return sys.executable
    uv, folder = os.environ.get("UV") or shutil.which("uv"), _ROOT / ".venv-newer"
    if uv is None:
        pytest.skip("several CPU processes need jax 0.11, and there is no uv to install it with")
    asked = [
        uv,
        "sync",
        "--quiet",
        "--locked",
        "--no-default-groups",
        "--extra",
        "launchers",
        "--extra",
        "bucket",
        "--compile-bytecode",
        "--python",
        _newer(),
    ]
    own = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON")}
    made = subprocess.run(
        asked, cwd=_ROOT, env={**own, "UV_PROJECT_ENVIRONMENT": str(folder)}, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"several CPU processes need jax 0.11, and it cannot be installed: {made.stderr.strip()}")
    return str(folder / "bin" / "python")


def environment(home: Path, devices: int = DEVICES) -> dict[str, str]:
    """Variables of a process with some CPU devices and a cache in a folder."""
    flags = f"--xla_force_host_platform_device_count={devices} {quick.LEVEL}"
    return {**os.environ, "IMMUNAX_CACHE": str(home / "cache"), "XLA_FLAGS": flags, "COLUMNS": "200"}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def start(
    home: Path,
    count: int,
    *command: str,
    timeout: float = 60,
    changes: Mapping[int, tuple[str, ...]] | None = None,
    absent: int | None = None,
    variables: Sequence[Mapping[str, str]] = (),
) -> list[subprocess.Popen]:
    """Starts ``python -m immunax.MODULE ARGUMENTS`` as processes 0 to ``count - 1``.

    Args:
      home: where.
      count: of processes.
      command: module and arguments.
      timeout: of the job, seconds.
      changes: further arguments of single processes.
      absent: one that is not started.
      variables: further ones of the environment of each, where given.
    """
    where = f"distributed.coordinator=localhost:{free_port()}", f"distributed.timeout={timeout}"
    return [
        started(
            home,
            *command,
            *where,
            f"distributed.processes={count}",
            f"distributed.process_id={index}",
            *(changes or {}).get(index, ()),
            variables=variables[index] if variables else {},
        )
        for index in set(range(count)) - {absent}
    ]


def started(home: Path, module: str, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts ``python -m immunax.MODULE ARGUMENTS``."""
    return subprocess.Popen(
        [python(), "-m", f"immunax.{module}", *arguments],
        cwd=home,
        env={**environment(home), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_script(home: Path, count: int, source: str, *arguments: object) -> list[subprocess.Popen]:
    """Starts a program as processes 0 to ``count - 1``; it is given a port, which of them it is, and arguments."""
    port = free_port()
    return [
        subprocess.Popen(
            [python(), "-c", source, *map(str, (port, index, *arguments))],
            cwd=home,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def alone(home: Path, devices: int, *command: str) -> Ended:
    """One process with some devices."""
    module, *arguments = command
    done = subprocess.run(
        [python(), "-m", f"immunax.{module}", *arguments],
        cwd=home,
        env=environment(home, devices),
        capture_output=True,
        text=True,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def ends(started: list[subprocess.Popen], seconds: float = 300) -> list[Ended]:
    """Waits for all of them; whoever is there after some seconds is killed."""
    found = []
    for process in started:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        found.append(Ended(process.returncode, out, err))
    return found

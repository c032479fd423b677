"""Runs a command as several processes on this machine, as on several hosts."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import quick

DEVICES = 2
"""Of each process."""


class Ended(NamedTuple):
    """A process that has ended."""

    status: int
    out: str
    err: str


def environment(home: Path, devices: int = DEVICES) -> dict[str, str]:
    """Variables of a process with some CPU devices and a cache in a folder."""
    flags = f"--xla_force_host_platform_device_count={devices} {quick.FLAGS}"
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
) -> list[subprocess.Popen]:
    """Starts ``python -m immunax.MODULE ARGUMENTS`` as processes 0 to ``count - 1``.

    Args:
      home: where.
      count: of processes.
      command: module and arguments.
      timeout: of the job, seconds.
      changes: further arguments of single processes.
      absent: one that is not started.
    """
    where = f"distributed.coordinator=localhost:{free_port()}", f"distributed.timeout={timeout}"
    started = []
    for index in set(range(count)) - {absent}:
        module, *arguments = command
        own = (f"distributed.processes={count}", f"distributed.process_id={index}", *(changes or {}).get(index, ()))
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", f"immunax.{module}", *arguments, *where, *own],
                cwd=home,
                env=environment(home),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


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

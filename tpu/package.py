"""The package's own environment, where the launcher has it say what a command comes to. The launcher itself needs none."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escaped
from tpu.job import Job
from tpu.slices import ROOT


class Run(NamedTuple):
    """One job of a command line.

    Attributes:
      sweep: what its sweep is called by the line or by an experiment; None where neither says.
      folder: its name within the sweep; None of a command that is no sweep.
      overrides: its arguments.
      compile: the arguments of ``immunax.compile`` for its step; None where there are none.
    """

    sweep: str | None
    folder: str | None
    overrides: list[str]
    compile: list[str] | None


def python(given: str | None) -> str:
    """The interpreter that has the package.

    Args:
      given: by the user.

    Returns:
      That, or the checkout's own environment, or the one that this runs in.
    """
    own = ROOT / ".venv" / "bin" / "python"
    return given or (str(own) if own.exists() else sys.executable)


def asked(
    interpreter: str, arguments: Sequence[str], given: str = "", folder: Path = ROOT
) -> subprocess.CompletedProcess:
    """Runs a module of the package.

    Args:
      interpreter: that has it.
      arguments: behind ``-m``.
      given: its standard input.
      folder: where it runs.

    Raises:
      UserError: the interpreter is not there, or does not have the package.
    """
    # The folder of the checkout holds both the package and this one; a CPU compiles for a TPU.
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    try:
        done = subprocess.run(
            [interpreter, "-m", *arguments], cwd=folder, env=environment, input=given, capture_output=True, text=True
        )
    except OSError as error:
        raise UserError(f"--python {interpreter}: {error.strerror}.") from error
    if "ModuleNotFoundError" in done.stderr:
        last = done.stderr.strip().splitlines()[-1]
        raise UserError(
            f"{interpreter} lacks what the check needs ({escaped(last, 120)}): uv sync --extra tpu, or give --python, or "
            "--unchecked to go on without."
        )
    return done


def runs(interpreter: str, job: Job) -> list[Run]:
    """The jobs of a command line, each with its arguments.

    Args:
      interpreter: that has the package.
      job: the command.

    Raises:
      UserError: the command itself would refuse it; in its words.
    """
    done = asked(interpreter, ["tpu.composed"], json.dumps({"module": job.module, "overrides": list(job.overrides)}))
    if done.returncode == 2:
        raise UserError(_mistake(done.stderr))
    if done.returncode:
        raise RuntimeError(f"tpu.composed ended with {done.returncode}:\n{done.stderr}")
    found = [Run(**record) for record in json.loads(done.stdout)]
    if len(found) > 1 and not job.multirun:
        raise UserError(
            f"{found[0].folder} and others: several values need -m, a run for each; quote a value with a comma."
        )
    return found


def _mistake(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.startswith("error: ")] or text.strip().splitlines()
    return lines[-1].removeprefix("error: ")

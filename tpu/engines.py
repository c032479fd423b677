"""A sweep's runs handed to the program of an engine: ``sbatch``, ``ray job submit``; and what an engine would pass over."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from immunax.runtime.errors import UserError
from tpu import sweeps
from tpu.calls import Calls
from tpu.job import Job
from tpu.manifests import HERE
from tpu.names import positive
from tpu.slices import Shape

ENGINES = ("lines", "kueue", "slurm", "ray")
ON_SLICES = ("kueue", "ray")
_SIDE_BY_SIDE = ("slurm", "ray")
_RAY_RUNS, _LINES = "ray_runs.py", "lines"


def check(options: argparse.Namespace) -> None:
    """Refuses what the engine would pass over.

    Args:
      options: of the command line; ``engine``, ``env``, ``slices``, ``at_once``, ``lines``.

    Raises:
      UserError: an option is of another engine.
    """
    engine = options.engine
    if options.env and engine not in ON_SLICES:
        raise UserError(
            f"--env: --engine {engine} hands no environment on; set it where the commands run, or write it there."
        )
    if engine == "ray" and options.slices > 1:
        raise UserError("--slices: Ray gives each run one slice; leave it out, or take --engine kueue.")
    if options.lines is not None and engine != "slurm":
        raise UserError(f"--lines: --engine {engine} reads no file; leave it out, or take --engine slurm.")
    if options.at_once is not None:
        positive("--at-once", options.at_once)
        if engine == "kueue":
            raise UserError("--at-once: Kueue has as many at a time as its queue; give it to the command kueue.")
        if engine not in _SIDE_BY_SIDE:
            raise UserError(f"--at-once: --engine {engine} starts none; leave it out, or take --engine slurm or ray.")


def to_slurm(calls: Calls, name: str, jobs: Sequence[Job], at_once: int | None, file: Path | None) -> str:
    """Hands commands to SLURM, as an array.

    Args:
      calls: programs outside.
      name: of the sweep.
      jobs: a command a run.
      at_once: runs side by side; None for as many as SLURM has room for.
      file: where the commands are written, for the nodes to read; by default beside us, by the sweep's name.

    Returns:
      What ``sbatch`` says.

    Raises:
      OutsideError: it refuses.
    """
    file = (file or Path(f"{name}.lines")).absolute()
    if not calls.dry:
        file.write_text(sweeps.lines(jobs))
    most = f"--array=1-{len(jobs)}" + (f"%{at_once}" if at_once else "")
    return calls.must(["sbatch", most, f"--job-name={name}", str(HERE / "slurm.sbatch"), str(file)])


def to_ray(
    calls: Calls,
    name: str,
    jobs: Sequence[Job],
    at_once: int | None,
    shape: Shape,
    address: str | None,
    variables: Mapping[str, str],
) -> str:
    """Hands commands to a cluster of Ray, as a job, and of the checkout only ``ray_runs.py``: what is installed there runs.

    Args:
      calls: programs outside.
      name: of the sweep.
      jobs: a command a run.
      at_once: runs side by side; None for as many as Ray has slices for.
      shape: of each slice.
      address: of the cluster; None for the one that Ray knows.
      variables: of the runs' environment.

    Returns:
      What ``ray job submit`` says.

    Raises:
      OutsideError: it fails.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path("/tmp/immunax-ray") if calls.dry else Path(made)
        if not calls.dry:
            (folder / _LINES).write_text(sweeps.lines(jobs))
            shutil.copy(HERE / _RAY_RUNS, folder)
        argv = [
            *("ray", "job", "submit", *([f"--address={address}"] if address else [])),
            *(f"--submission-id={name}", "--no-wait"),
            *(f"--runtime-env-json={json.dumps({'env_vars': dict(variables)})}", f"--working-dir={folder}", "--"),
            *("python", _RAY_RUNS, _LINES, shape.type, str(shape.machines), str(shape.chips // shape.machines)),
            *([str(at_once)] if at_once else []),
        ]
        return calls.must(argv)

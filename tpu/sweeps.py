"""A sweep's runs for an engine that schedules them: a JobSet each (Kueue), an element of an array (SLURM), a task (Ray).

Each run is a command by itself, whose folder is named by what differs, as ``-m`` names it: a run that is finished says so and
does nothing, so any engine may start any of them again.
"""

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace

from immunax.runtime.errors import UserError
from tpu.job import Job
from tpu.manifests import Cluster, jobset
from tpu.package import Run
from tpu.slices import Shape


def name_of(runs: Sequence[Run]) -> str:
    """What a sweep's folder is called.

    Args:
      runs: of it.

    Raises:
      UserError: it has no name.
    """
    name = runs[0].sweep
    if name is None:
        raise UserError("a sweep of an engine needs a name that stays the same: give the command run=NAME.")
    return name


def commands(job: Job, runs: Sequence[Run]) -> list[Job]:
    """A command for each run of a sweep.

    Args:
      job: the sweep; ``run=NAME`` or its experiment names it.
      runs: of it.

    Returns:
      As many, each with a ``run`` of its own, ``NAME/FOLDER``.

    Raises:
      UserError: the sweep has no name.
    """
    name, found = name_of(runs), []
    for each in runs:
        rest = [text for text in each.overrides if not text.lstrip("+").startswith("run=")]
        # In quotes: a folder's name has = and + in it, which Hydra would read.
        run = name if each.folder is None else f'"{name}/{each.folder}"'
        found.append(replace(job, overrides=(*rest, f"run={run}"), multirun=False))
    return found


def lines(jobs: Sequence[Job]) -> str:
    """A shell's line for each command, to be run one by one."""
    return "".join(f"{shlex.join(each.arguments)}\n" for each in jobs)


def jobsets(sweep: str, jobs: Sequence[Job], shape: Shape, slices: int, cluster: Cluster) -> str:
    """A JobSet for each command, named by the sweep and the run's folder.

    Args:
      sweep: its name at Kubernetes.
      jobs: of :func:`commands`.
      shape: of each slice.
      slices: that compute together.
      cluster: where.
    """
    return "---\n".join(
        jobset(f"{sweep[:28]}-{_short(each)}", each, shape, slices, cluster, sweep, _run(each)) for each in jobs
    )


def _run(job: Job) -> str:
    return (job.value("run") or "").strip('"')


def _short(job: Job) -> str:
    return hashlib.sha256(_run(job).encode()).hexdigest()[:8]

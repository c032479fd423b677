"""Jobs of a sweep on engines that start processes elsewhere: joblib, submitit, Ray.

Each gets the same work, a function of a job's number and overrides, and gives what became of it. A worker that is killed takes
its own job with it and no more; which runs are left, the folders of the runs tell.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from immunax.runtime import signals
from immunax.runtime.ending import ended_with_others
from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_BUG, is_stop
from immunax.runtime.job import DISTRIBUTED, FOLLOWER, join, part_of
from immunax.runtime.leader import is_leader
from immunax.runtime.meeting import LostError
from immunax.runtime.objective import FIELD
from immunax.runtime.one_line import in_one_line
from immunax.runtime.parts import EACH, Part
from immunax.runtime.sweeps import names
from immunax.runtime.together import processes

_PLUGINS = "hydra_plugins.immunax_sweeps."
NEEDS = {
    f"{_PLUGINS}launchers.Joblib": ("joblib", "launchers"),
    f"{_PLUGINS}launchers.Submitit": ("submitit", "launchers"),
    f"{_PLUGINS}launchers.Ray": ("ray", "ray"),
    f"{_PLUGINS}sweepers.Optuna": ("optuna", "launchers"),
}
"""The module that a plugin is made of, and the extra that brings it."""
_POLL_SECONDS = 0.5

Numbered = tuple[int, Sequence[str]]
"""A job's number and its overrides."""


def check(config: DictConfig, sweep: bool) -> None:
    """Refuses a launcher or a sweeper that cannot do what is asked.

    Args:
      config: composed, Hydra's own included.
      sweep: whether there are to be several runs.

    Raises:
      UserError: its engine is not installed, there is nothing to launch, or nothing for a sweeper to go by.
    """
    choices = config.hydra.runtime.choices
    part = part_of(config)
    if part is not None and config.get(DISTRIBUTED) is not None:
        _check_part(part, choices, sweep)
    for group in ("hydra/launcher", "hydra/sweeper"):
        module, extra = NEEDS.get(str(config.hydra[group.partition("/")[2]].get("_target_")), ("hydra", ""))
        if find_spec(module) is None:
            raise UserError(
                f"{group}={choices[group]} needs {module}, which is not installed: pip install 'immunax[{extra}]'"
            )
        if module != "hydra" and not sweep:
            raise UserError(f"{group}={choices[group]} is for a sweep: add -m, or leave it out.")
    if choices["hydra/sweeper"] == "optuna" and config.get(FIELD) is None:
        raise UserError(
            f"hydra/sweeper=optuna makes a number small: name it, such as {FIELD}=results.immunized.after.refusal "
            "(- before it: large)."
        )


def _check_part(part: Part, choices: DictConfig, sweep: bool) -> None:
    if part.index is None and not sweep:
        raise UserError(
            f"mesh.part={EACH}/{part.count} shares out the runs of a sweep: add -m, or name the part of this one run, as "
            f"mesh.part=0/{part.count}."
        )
    for group, own in {"hydra/launcher": "basic", "hydra/sweeper": "grid"}.items():
        if sweep and choices[group] != own:
            raise UserError(
                f"mesh.part shares out a grid that its own processes run: leave {group}={choices[group]} out."
            )


def check_alone(config: DictConfig) -> None:
    """Refuses a launcher of other processes in one of several that are one job.

    Args:
      config: composed, Hydra's own included.

    Raises:
      UserError: it is one.
    """
    if processes() > 1 and str(config.hydra.launcher.get("_target_")) in NEEDS:
        raise UserError(
            f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']} starts processes of its own, and this is one of "
            f"{processes()} that run as one: leave it out, or leave distributed out and have it start several "
            "(submitit_slurm with hydra.launcher.parameters.nodes=N)."
        )


@dataclass(frozen=True)
class Work:
    """A job in a process of its own, as Hydra's own launcher does it in this one.

    Attributes:
      context: Hydra's.
      config: of the sweep.
      task: what runs a configuration.
      state: of Hydra's singletons, from ``Singleton.get_state()``.
    """

    context: HydraContext
    config: DictConfig
    task: Callable[[DictConfig], Any]
    state: Mapping[Any, Any]

    def __call__(self, number: int, overrides: Sequence[str]) -> JobReturn:
        """What became of a job.

        Args:
          number: of the job.
          overrides: of its command line.
        """
        setup_globals()
        names.register()
        Singleton.set_state(self.state)
        config = self._composed(number, overrides)
        with signals.Leaving(), in_one_line():
            join(config)  # before Hydra fills the run's folder, which the leader alone may
        if not is_leader():
            config = self._composed(number, [*overrides, *FOLLOWER])
        places = "hydra.sweep.dir", "hydra.sweep.subdir"
        found = run_job(self.task, config, *places, hydra_context=self.context)
        return JobReturn(status=found.status, _return_value=found._return_value)

    def _composed(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(config)
        return config


def lost() -> JobReturn:
    """What is returned of a job whose worker is gone."""
    return JobReturn(status=JobStatus.FAILED, _return_value=LostError("its worker was lost; start the sweep again."))


def on_joblib(work: Work, jobs: Sequence[Numbered], at_once: int) -> list[JobReturn]:
    """Jobs in processes on this machine, by joblib's executor.

    Args:
      work: of a job.
      jobs: all of them.
      at_once: how many run at once; -1 for one a core.
    """
    from joblib import effective_n_jobs
    from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    # A pool breaks with any of its workers, and all that it was given is lost: each worker is a pool of its own.
    pools = [ProcessPoolExecutor(1) for _ in range(min(effective_n_jobs(at_once), len(jobs)))]
    found, ahead = [lost() for _ in jobs], enumerate(jobs)
    running: dict[Future[JobReturn], tuple[int, int]] = {}

    def start(pool: int) -> None:
        for place, job in islice(ahead, 1):
            running[pools[pool].submit(_stopped_is_lost, work, *job)] = place, pool

    try:
        for pool in range(len(pools)):
            start(pool)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, pool = running.pop(future)
                try:
                    found[place] = future.result()
                except BrokenProcessPool:
                    pools[pool].shutdown(wait=False)
                    pools[pool] = ProcessPoolExecutor(1)
                start(pool)
    finally:
        for pool in pools:
            pool.shutdown(kill_workers=bool(running))
    return found


def _stopped_is_lost(work: Work, number: int, overrides: Sequence[str]) -> JobReturn:
    try:
        return work(number, overrides)
    except SystemExit as stop:
        # It would end the whole sweep, whose other workers nobody has asked to stop.
        if is_stop(stop.code):
            return lost()
        raise


def on_submitit(
    work: Work, jobs: Sequence[Numbered], cluster: str, folder: str, at_once: int, parameters: Mapping[str, Any]
) -> list[JobReturn]:
    """Jobs as submitit starts them.

    Args:
      work: of a job.
      jobs: all of them.
      cluster: ``slurm``, an array there; or ``local``, processes on this machine.
      folder: of submitit's files.
      at_once: how many run at once.
      parameters: of ``submitit.AutoExecutor.update_parameters``.

    Raises:
      UserError: there is no such cluster, or it refuses a parameter.
    """
    import submitit
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**parameters)
        if cluster != "slurm":
            started = _some_at_once(executor, work, jobs, at_once)
        else:
            executor.update_parameters(slurm_array_parallelism=at_once)
            started = executor.map_array(partial(_ended, work), *map(list, zip(*jobs, strict=True)))
    except (RuntimeError, ValueError, TypeError, NameError, FailedSubmissionError) as error:
        told = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise UserError(f"hydra/launcher: submitit on {cluster}: {told[:300]}") from error

    def ended(job: Any) -> JobReturn:
        if cluster != "slurm":
            job.wait()
            # On a disk of others submitit gives a result 15 s to appear; here it is there, or its process was killed.
            if not job.paths.result_pickle.exists():
                return lost()
        try:
            return job.results()[0]
        except UncompletedJobError:
            return lost()

    try:
        return [ended(job) for job in started]
    except SystemExit:
        if cluster != "slurm":  # whose queue goes on
            _stop(started)
        raise


def _stop(started: Sequence[Any]) -> None:
    for job in started:
        if not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)


def _ended(work: Work, number: int, overrides: Sequence[str]) -> JobReturn:
    with ended_with_others():
        return work(number, overrides)


def _some_at_once(executor: Any, work: Work, jobs: Sequence[Numbered], most: int) -> list[Any]:
    # A local executor has no queue: it starts what it is given.
    started: list[Any] = []
    try:
        for job in jobs:
            while sum(not each.done() for each in started) >= most:
                time.sleep(_POLL_SECONDS)
            started.append(executor.submit(_ended, work, *job))
    except SystemExit:
        _stop(started)
        raise
    return started


def on_ray(work: Work, jobs: Sequence[Numbered], init: Mapping[str, Any], remote: Mapping[str, Any]) -> list[JobReturn]:
    """Jobs as tasks of Ray, which starts one again elsewhere whose worker or machine is lost.

    Args:
      work: of a job.
      jobs: all of them.
      init: of ``ray.init``: the address of a cluster, or what this machine has to give.
      remote: of ``ray.remote``: what a job takes, and how often it is started again.

    Raises:
      UserError: there is no such cluster.
    """
    # Where uv has started this process, Ray would start its workers by it too, each in a copy of this folder.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    try:
        ray.init(**init)
    except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
        told = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise UserError(f"hydra/launcher=ray: {told[:300]}") from error
    try:
        given, start = ray.put(work), ray.remote(**remote)(_stopped_is_started_again)
        started = [start.remote(given, *job) for job in jobs]

        def ended(job: Any) -> JobReturn:
            try:
                return ray.get(job)
            except RayError:
                return lost()

        return [ended(job) for job in started]
    finally:
        ray.shutdown()


def _stopped_is_started_again(work: Work, number: int, overrides: Sequence[str]) -> JobReturn:
    try:
        return work(number, overrides)
    except SystemExit as stop:
        # Ray starts a task again whose worker has gone.
        signals.end(stop.code if isinstance(stop.code, int) else EXIT_BUG)

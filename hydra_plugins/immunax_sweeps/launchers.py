"""Launchers: ``hydra/launcher=joblib``, ``submitit_local``, ``submitit_slurm`` and ``ray``."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class _Engine(Launcher):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra's launcher."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See Hydra's launcher."""
        from immunax.runtime.sweeps.engines import Work

        work = Work(self.context, self.config, self.task, Singleton.get_state())
        return self.start(work, list(enumerate(map(list, job_overrides), start=initial_job_idx)))

    def start(self, work: Any, jobs: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """Starts jobs, and returns what became of them.

        Args:
          work: of a job.
          jobs: numbers and overrides.
        """
        raise NotImplementedError


class Joblib(_Engine):
    """Processes on this machine; see ``engines.on_joblib``."""

    def __init__(self, at_once: int):
        self.at_once = at_once

    def start(self, work: Any, jobs: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """See the base class."""
        from immunax.runtime.sweeps.engines import on_joblib

        return on_joblib(work, jobs, self.at_once)


class Submitit(_Engine):
    """Processes on this machine, or SLURM; see ``engines.on_submitit``."""

    def __init__(self, cluster: str, folder: str, at_once: int, parameters: Mapping[str, Any]):
        self.cluster, self.folder, self.at_once, self.parameters = cluster, folder, at_once, _plain(parameters)

    def start(self, work: Any, jobs: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """See the base class."""
        from immunax.runtime.sweeps.engines import on_submitit

        return on_submitit(work, jobs, self.cluster, self.folder, self.at_once, self.parameters)


class Ray(_Engine):
    """A Ray cluster; see ``engines.on_ray``."""

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]):
        self.init, self.remote = _plain(init), _plain(remote)

    def start(self, work: Any, jobs: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """See the base class."""
        from immunax.runtime.sweeps.engines import on_ray

        return on_ray(work, jobs, self.init, self.remote)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

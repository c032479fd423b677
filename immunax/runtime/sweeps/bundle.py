"""Several runs as one job of a launcher: one after another, or as one program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig

from immunax.runtime.job import Job, Run

Overrides = tuple[str, ...]
Bundle = tuple[tuple[Overrides, ...], ...]
"""Runs by their overrides: groups one after another, of which each is one program."""


@dataclass(frozen=True)
class Bundled:
    """What a launcher is given in place of a job, which it knows by the overrides of the first run.

    Attributes:
      job: of one run.
      context: Hydra's.
      config: of the sweep.
      bundles: by the overrides of their first run; one that is not there stands for itself.
    """

    job: Job
    context: HydraContext
    config: DictConfig
    bundles: Mapping[Overrides, Bundle]

    def __call__(self, config: DictConfig) -> Any:
        """Does all runs of a bundle; what each comes to is in its folder."""
        first = tuple(HydraConfig.get().overrides.task)
        if first not in self.bundles:
            return self.job(config)
        for group in self.bundles[first]:
            if len(group) == 1:
                self._run(self.job, group[0])
                continue
            runs: list[Run] = []
            for overrides in group:
                self._run(lambda config, runs=runs: runs.append(self.job.prepared(config)), overrides)
            self.job.do_together(runs)
        return None

    def _run(self, task: Callable[[DictConfig], Any], overrides: Overrides) -> None:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        places = "hydra.sweep.dir", "hydra.sweep.subdir"
        returned: JobReturn = run_job(task, config, *places, hydra_context=self.context)
        _ = returned.return_value  # raises what the task has raised


def bundles(groups: Sequence[Sequence[Overrides]], pack: int) -> list[Bundle]:
    """Bundles of ``pack`` groups each.

    Args:
      groups: runs that are one program.
      pack: how many groups a job does one after another.
    """
    whole = [tuple(map(tuple, group)) for group in groups]
    return [tuple(whole[place : place + pack]) for place in range(0, len(whole), pack)]

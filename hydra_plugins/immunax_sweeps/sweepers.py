"""Sweepers: ``hydra/sweeper=grid``, the default, and ``optuna``."""

from collections.abc import Callable, Mapping
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Runs(Sweeper):
    def __init__(self, params: Mapping[str, Any] | None, **options: Any):
        self.params, self.options = params or {}, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra's sweeper."""
        from hydra.core.plugins import Plugins

        parts: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.parts: tuple[Any, ...] = (
            hydra_context,
            config,
            task_function,
            Plugins.instance().instantiate_launcher(**parts),
        )

    def run(self, sweep: Callable[..., None], arguments: list[str]) -> None:
        """Runs a sweep over the overrides of ``hydra.sweeper.params`` and of the command line."""
        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        sweep(*self.parts, given, **self.options)


class Grid(_Runs):
    """Every combination of the values given; see ``sweeps.grid``."""

    def sweep(self, arguments: list[str]) -> Any:
        """See Hydra's sweeper."""
        from immunax.runtime.sweeps.grid import sweep

        self.run(sweep, arguments)


class Optuna(_Runs):
    """Values that Optuna chooses by what came of earlier ones; see ``sweeps.study``."""

    def sweep(self, arguments: list[str]) -> Any:
        """See Hydra's sweeper."""
        from immunax.runtime.sweeps.study import sweep

        self.run(sweep, arguments)

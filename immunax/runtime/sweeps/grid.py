"""A sweep over every combination of the values that are given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from immunax.runtime import mirror
from immunax.runtime.errors import UserError
from immunax.runtime.job import Job
from immunax.runtime.leader import is_leader
from immunax.runtime.sweeps.elsewhere import placed
from immunax.runtime.sweeps.runs import Options, Runs


def sweep(
    context: HydraContext, config: DictConfig, job: Job, launcher: Launcher, arguments: Sequence[str], **options: Any
) -> None:
    """Runs every combination.

    Args:
      context: Hydra's.
      config: of the sweep.
      job: what runs one.
      launcher: Hydra's.
      arguments: overrides, some with several values.
      options: of :class:`~immunax.runtime.sweeps.runs.Options`.

    Raises:
      UserError: a value is none of a grid, or a combination cannot be composed.
    """
    runs = Runs(context, config, job, launcher, Options(**options))
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    for each in parsed:
        if each.is_sweep_override() and not each.is_discrete_sweep():
            raise UserError(
                f"{each.input_line}: a range has no last value in a grid; list some, or add hydra/sweeper=optuna."
            )
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    save(config)
    runs.complete(placed(Path(str(config.hydra.sweep.dir)).absolute(), runs.wanted(batch)))


def save(config: DictConfig) -> None:
    """Leaves the configuration of a sweep in its folder, as Hydra's own sweeper does."""
    if is_leader():
        folder = Path(str(config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "multirun.yaml")
        mirror.put(folder / "multirun.yaml")

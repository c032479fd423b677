"""The runs of a sweep, launched until each has ended, whatever launcher starts them and however many of its workers die.

Nothing is queued here: what is left is read off the folders of the runs, which every start of the same line, and of a longer
one, finds as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from immunax.runtime import console, digest, mirror
from immunax.runtime.distributed import share
from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_LOST
from immunax.runtime.job import Job, given
from immunax.runtime.overrides import refused
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.bundle import Bundled, Overrides, bundles
from immunax.runtime.sweeps.outcome import Asked, Outcome
from immunax.runtime.together import agreed

_PATIENCE = 10
"""How many rounds of lost workers may end no run before the sweep ends."""


@dataclass(frozen=True)
class Options:
    """How runs become jobs of a launcher.

    Attributes:
      fuse: whether runs become one program where they can; a number, so many of them at most.
      pack: how many jobs one of a launcher does, one after another.
      max_batch_size: how many runs are launched before the next ones are looked at; None for all.
    """

    fuse: bool | int = False
    pack: int = 1
    max_batch_size: int | None = None

    def __post_init__(self):
        if not isinstance(self.fuse, int) or self.fuse < 0:
            raise UserError(f"hydra.sweeper.fuse={self.fuse}: expected true, false, or how many runs at most.")
        for name in ("pack", "max_batch_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"hydra.sweeper.{name}={value}: expected a whole number, at least 1.")


class Wanted(NamedTuple):
    """A run of a sweep.

    Attributes:
      overrides: of its command line.
      folder: of the run.
      asked: what is asked of it.
      rest: SHA-256 of what it shares with those that it may be one program with.
    """

    overrides: Overrides
    folder: Path
    asked: Asked
    rest: str


class Runs:
    """The runs of one sweep.

    Attributes:
      context: Hydra's.
      config: of the sweep.
      job: what runs one.
      launcher: Hydra's.
      options: how runs become jobs.
      lost: those whose workers were lost too often, in the order of their loss.
    """

    def __init__(self, context: HydraContext, config: DictConfig, job: Job, launcher: Launcher, options: Options):
        if options.fuse and job.together is None:
            raise UserError("hydra.sweeper.fuse: runs of immunax.attack alone can be one program; leave it out.")
        self.context, self.config, self.job, self.launcher, self.options = context, config, job, launcher, options
        self.lost: list[Wanted] = []
        self._launched = 0

    def wanted(self, batch: Sequence[Sequence[str]]) -> list[Wanted]:
        """The runs of some command lines.

        Args:
          batch: overrides of each run.

        Raises:
          UserError: those of one do not go together.
        """
        return [self._wanted(tuple(overrides)) for overrides in batch]

    def complete(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, Outcome | None]]:
        """Launches what has not ended, and waits for it.

        Args:
          wanted: the runs.

        Returns:
          Each run with how it ended; None for one that failed or was lost, or that another part of the job has to do.

        Raises:
          UserError: the launcher refuses.
        """
        ended = self._known(wanted)
        distinct = list(dict.fromkeys(wanted))
        first, step = share() or (0, 1)
        left = [run for run in distinct[first::step] if run not in ended]
        _tell(distinct, ended)
        size = self.options.max_batch_size or max(1, len(left))
        for place in range(0, len(left), size):
            ended |= self._finish(left[place : place + size])
        return [(run, ended.get(run)) for run in wanted]

    def _finish(self, left: list[Wanted]) -> dict[Wanted, Outcome]:
        ended: dict[Wanted, Outcome] = {}
        idle = 0
        while left and idle < _PATIENCE:
            if ended or idle:
                console.note(f"{len(left)} of the sweep's runs have lost their worker: they go on")
            self._launch(left)
            ended |= self._known(left)
            noted = set(agreed(lambda: [each.folder for each in self.job.failures.found()]))
            still = [run for run in left if run not in ended and mirror.named(run.folder) not in noted]
            idle = idle + 1 if len(still) == len(left) else 0
            left = still
        self.lost += left
        for run in left:
            self.job.failures.note(
                run.folder, f"{run.folder.name} (its worker was lost; start the line again)", EXIT_LOST
            )
        return ended

    def _launch(self, left: Sequence[Wanted]) -> None:
        groups: dict[Any, list[Overrides]] = {}
        for place, run in enumerate(left):
            groups.setdefault(run.rest if self.options.fuse else place, []).append(run.overrides)
        most = len(left) if self.options.fuse is True else max(1, int(self.options.fuse))
        parts = [group[place : place + most] for group in groups.values() for place in range(0, len(group), most)]
        jobs = bundles(parts, self.options.pack)
        firsts = [bundle[0][0] for bundle in jobs]
        several = {first: bundle for first, bundle in zip(firsts, jobs, strict=True) if bundle != ((first,),)}
        task = Bundled(self.job, self.context, self.config, several) if several else self.job
        self.launcher.setup(hydra_context=self.context, task_function=task, config=self.config)
        self.launcher.launch([list(first) for first in firsts], initial_job_idx=self._launched)
        self._launched += len(firsts)

    def _wanted(self, overrides: Overrides) -> Wanted:
        before = HydraConfig.instance().cfg
        try:
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            HydraConfig.instance().set_config(config)
            places = [str(OmegaConf.select(config, f"hydra.sweep.{name}")) for name in ("dir", "subdir")]
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise refused(error) from error
        finally:
            HydraConfig.instance().cfg = before
        plain = given(config).plain
        shared = {name: value for name, value in plain.items() if name not in (*outcome.FREE, *self.job.differ)}
        return Wanted(overrides, Path(*places).absolute(), Asked.of(plain), digest.of_json(shared))

    def _known(self, runs: Sequence[Wanted]) -> dict[Wanted, Outcome]:
        def known() -> list[dict[str, Any] | None]:
            outcome.fetch(Path(str(self.config.hydra.sweep.dir)))
            return [_plain(outcome.known(run.folder, run.asked)) for run in runs]

        found = agreed(known)
        return {run: Outcome(**each) for run, each in zip(runs, found, strict=True) if each is not None}


def _plain(found: Outcome | None) -> dict[str, Any] | None:
    return None if found is None else vars(found)


def _tell(runs: Sequence[Wanted], ended: dict[Wanted, Outcome]) -> None:
    if not ended:
        return
    diverged = [run for run, found in ended.items() if found.diverged]
    other = [run for run, found in ended.items() if not found.same_code]
    said = [f"{len(ended)} of {len(runs)} runs have ended before"]
    said += [f"{len(diverged)} of them diverged: {', '.join(run.folder.name for run in diverged)}"] if diverged else []
    told = (
        f"{len(other)} of them with other code or libraries than now (such as {other[0].folder.name})" if other else ""
    )
    said += [told] if told else []
    console.note(f"{'; '.join(said)}; to make one anew, delete its folder")

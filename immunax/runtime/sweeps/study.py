"""A sweep whose values Optuna chooses by what came of earlier ones.

The study is a journal in the folder of the sweep: what a run came to is told there once, so that the same line goes on where it
was, and one with more trials goes on from there. Trials that were asked for and not told of, as where the machine was taken away,
are run again under the same name, which goes on too.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from immunax.runtime import atomic, console, failure, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.job import DISTRIBUTED, Job, alone
from immunax.runtime.objective import FIELD, objective
from immunax.runtime.sweeps.grid import save
from immunax.runtime.sweeps.outcome import FREE, Outcome
from immunax.runtime.sweeps.runs import Options, Runs, Wanted
from immunax.runtime.together import agreed
from immunax.runtime.untrusted import values

JOURNAL, SUMMARY = "optuna.journal", "study.json"
"""Files in the folder of a sweep: Optuna's own, and the trials for whoever reads them."""
_GIVEN = "given"
_STRIDE = 1_000_003  # so that no two seeds draw alike after some trials
_STATES = {"COMPLETE": "ended", "PRUNED": "diverged", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Search:
    """How values are chosen.

    Attributes:
      trials: of the whole study, those of earlier starts among them.
      at_once: how many are chosen before the first of them has answered.
      sampler: makes one of Optuna's samplers of a seed.
    """

    trials: int
    at_once: int
    sampler: Callable[..., Any]

    def __post_init__(self):
        for name in ("trials", "at_once"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"hydra.sweeper.{name}={value}: expected a whole number, at least 1.")


def sweep(
    context: HydraContext,
    config: DictConfig,
    job: Job,
    launcher: Launcher,
    arguments: Sequence[str],
    trials: int,
    at_once: int,
    sampler: Callable[..., Any],
    **options: Any,
) -> None:
    """Runs trials until there are as many as asked for, or goes on with those of an earlier start.

    Args:
      context: Hydra's.
      config: of the sweep.
      job: what runs one.
      launcher: Hydra's.
      arguments: overrides, some with several values or a range.
      trials, at_once, sampler: as in :class:`Search`.
      options: of :class:`~immunax.runtime.sweeps.runs.Options`.

    Raises:
      UserError: the folder holds another study or another process works there, no value varies, or there is no such number.
    """
    search = Search(trials, at_once, sampler)
    runs = Runs(context, config, job, launcher, Options(**options))
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    last = {each.get_key_element(): each for each in parsed}
    varied = {name: each for name, each in last.items() if each.is_sweep_override()}
    fixed = [each.input_line or "" for name, each in last.items() if name not in varied]
    if not varied:
        raise UserError(
            "hydra/sweeper=optuna: no value varies; give one a range, such as seed=1,2 or 'x=interval(0,1)'."
        )
    save(config)
    folder, wanted = Path(str(config.hydra.sweep.dir)), str(config[FIELD])
    opened: list[Study] = []  # by the leader alone
    with alone(folder):
        agreed(lambda: opened.append(Study(folder, search, varied, fixed, wanted, int(config.get("seed") or 0))))
        while batch := agreed(lambda: opened[0].ask()):
            ended = runs.complete(runs.wanted([overrides for _, overrides in batch]))
            told = [
                (number, run, found)
                for (number, _), (run, found) in zip(batch, ended, strict=True)
                if run not in runs.lost
            ]
            agreed(lambda told=told: [opened[0].tell(*each) for each in told])
            if runs.lost:
                break
        agreed(lambda: opened[0].close())


class Study:
    """Trials, by number.

    Attributes:
      folder: of the sweep.
      search: how values are chosen.
      space: distributions by what they vary.
      fixed: the other overrides.
      wanted: the number of a run's manifest that is made small.
      seed: of the choices.
    """

    def __init__(
        self,
        folder: Path,
        search: Search,
        varied: Mapping[str, Override],
        fixed: Sequence[str],
        wanted: str,
        seed: int,
    ):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.folder, self.search, self.fixed, self.wanted, self.seed = folder, search, list(fixed), wanted, seed
        self.space = {name: _distribution(each) for name, each in varied.items()}
        storage = JournalStorage(JournalFileBackend(str(mirror.fetch(folder / JOURNAL))))
        self._study = optuna.create_study(study_name="study", storage=storage, load_if_exists=True)
        chosen = [f"{name}=..." for name in varied]
        kept = [each for each in fixed if _root(each) not in (*FREE, DISTRIBUTED)]
        self._given = sorted([f"{FIELD}={wanted}", *chosen, *kept])
        before = self._study.user_attrs.get(_GIVEN, self._given)
        if before != self._given:
            differ = sorted(set(before) ^ set(self._given))
            raise UserError(f"{folder} holds a study that differs in {', '.join(differ)}: choose another run=NAME.")

    def ask(self) -> list[tuple[int, list[str]]]:
        """The next trials, number and overrides: those that were not told of, or as many new ones as are chosen at once.

        Raises:
          UserError: a choice has other values than in the study, or the sampler takes no seed.
        """
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if begun:
            return [(trial.number, self._overrides(trial.params)) for trial in begun]
        count = min(self.search.at_once, self.search.trials - len(trials))
        try:
            # By what there is, not by what this process has drawn: a line chooses the same, however often it is stopped.
            self._study.sampler = self.search.sampler(seed=(self.seed * _STRIDE + len(trials)) % 2**32)
            new = [self._study.ask(self.space) for _ in range(count)]
        except (ValueError, TypeError) as error:
            raise UserError(f"hydra/sweeper=optuna: {error}; choose another run=NAME for another study.") from error
        mirror.put(self.folder / JOURNAL)
        return [(trial.number, self._overrides(trial.params)) for trial in new]

    def tell(self, number: int, run: Wanted, found: Outcome | None) -> None:
        """Tells what a trial came to: its number; diverged ones are pruned ones, and what failed is a failed one.

        Args:
          number: of the trial.
          run: of the trial.
          found: how it ended, None where it failed.

        Raises:
          UserError: the run has no such number.
        """
        from optuna.trial import TrialState

        value = math.inf if found is None or found.diverged else objective(run.folder, self.wanted)
        self._study.set_user_attr(_GIVEN, self._given)
        line = _line(run.folder) if found is None else found.line
        about = self._study._storage, self._study.get_trials(deepcopy=False)[number]._trial_id
        for name, text in (("folder", run.folder.name), ("line", line)):
            about[0].set_trial_user_attr(about[1], name, text)
        if math.isfinite(value):
            self._study.tell(number, value)
        else:
            self._study.tell(number, state=TrialState.FAIL if found is None else TrialState.PRUNED)
        mirror.put(self.folder / JOURNAL)

    def close(self) -> None:
        """Leaves the trials in a file, and tells of the best."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        rows = [
            {
                "trial": trial.number,
                "state": _STATES[trial.state.name],
                "value": trial.value,
                "folder": trial.user_attrs.get("folder"),
                "chosen": trial.params,
                "line": trial.user_attrs.get("line", ""),
            }
            for trial in trials
        ]
        with atomic.file(self.folder / SUMMARY) as temp:
            temp.write_text(json.dumps({FIELD: self.wanted, "trials": rows}, indent=2) + "\n")
        counts = Counter(row["state"] for row in rows)
        ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if ended:
            best = min(ended, key=lambda trial: trial.value or 0.0)
            said = f"the least {self.wanted} is {best.value:.4g}, of {best.user_attrs['folder']}"
            console.note(f"{said} ({', '.join(f'{count} {state}' for state, count in counts.items())})")

    def _overrides(self, chosen: Mapping[str, Any]) -> list[str]:
        return [*self.fixed, *(f"{name}={value}" for name, value in chosen.items())]


def _root(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def _line(folder: Path) -> str:
    file = folder / failure.FILE
    return str(values.read_object(file).get("line", "")) if mirror.fetch(file).is_file() else ""


def _distribution(override: Override) -> Any:
    """What Optuna draws from, for an override of several values or of a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low or 0.0), float(high or 0.0), log=log)
    if (
        isinstance(value, RangeSweep)
        and isinstance(whole := value.range(), range)
        and whole.step > 0
        and len(whole) > 0
    ):
        return IntDistribution(whole[0], whole[-1], step=whole.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))

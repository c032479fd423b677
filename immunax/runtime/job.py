"""One run as Hydra starts it: alone, or as a job of a sweep, in this process or in a launcher's."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from immunax.runtime import code, digest, failure, goodput, lease, lock, manifest, mirror, stand_ins, watch
from immunax.runtime.distributed import Distributed, begin
from immunax.runtime.errors import UserError
from immunax.runtime.host_devices import make_room
from immunax.runtime.leader import is_leader
from immunax.runtime.objective import FIELD, objective
from immunax.runtime.one_line import in_one_line
from immunax.runtime.parts import Part
from immunax.runtime.signals import Leaving
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.failures import Failures
from immunax.runtime.sweeps.outcome import Asked
from immunax.runtime.together import agreed, barrier, check_same_end
from immunax.runtime.user_config import UserConfig

DISTRIBUTED = "distributed"
FOLLOWER = ("hydra.output_subdir=null", "hydra/job_logging=stdout")
"""What Hydra is told in every process but the leader, which alone writes into a run's folder."""

_PROCESS_S_OWN = re.compile(rf"-(?!m$|-multirun$)|[+~]*({DISTRIBUTED}|hydra(?![./]sweeper))([=./@]|$)")
"""What may differ between the command lines of a job's processes: which one this is, and what Hydra is told apart from its
sweeper."""

Task = Callable[[UserConfig], Any]


@dataclass
class Run:
    """One of several runs that a task does as one.

    Attributes:
      config: of the run.
      folder: of the run.
      title: what tables call it.
      asked: what is asked of it, as a job of a sweep; None of a run by itself, where each start is a wish to run.
      job: what the end of a sweep calls it.
      choices: of the groups of its configuration, which Hydra knows of the run that it has composed last.
      failed: what ended it.
    """

    config: UserConfig
    folder: Path
    title: str
    asked: Asked | None = None
    job: str = ""
    choices: Mapping[str, str] = field(default_factory=manifest.choices)
    failed: Exception | None = field(default=None, init=False)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is raised within the block ends this run, and none of the others."""
        try:
            yield
        except Exception as error:
            self.failed = error
        check_same_end(self.title, int(self.failed is not None))


Together = Callable[[Sequence[Run]], Iterator[Run]]
"""Does several runs as one, and yields each as soon as it has ended; those that fail it need not yield."""


def run_directory() -> Path:
    """The folder of the current run; only within a command."""
    return Path(HydraConfig.get().runtime.output_dir)


def run_title() -> str:
    """What tables call the current run: its name, with the job's name behind it in a sweep; only within a command."""
    folder = run_directory()
    return f"{folder.parent.name}/{folder.name}" if _is_sweep() else folder.name


def given(config: DictConfig) -> UserConfig:
    """What a task gets of a composed configuration.

    Raises:
      UserError: a value is taken from another that is not there.
    """
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name not in ("hydra", DISTRIBUTED)])
    try:
        return UserConfig(cast(dict[str, Any], OmegaConf.to_container(own, resolve=True)))
    except InterpolationResolutionError as error:
        place = str(error.full_key)
        wanted = str(error).partition("'")[2].partition("'")[0]
        raise UserError(
            f"{place} is taken from {wanted}, which this configuration does not have: leave {place.partition('.')[0]} out, or "
            f"choose a {wanted.partition('.')[0]} that has it"
        ) from error


def join(config: DictConfig, line: Sequence[str] = ()) -> None:
    """Makes this process one of a job's, where a configuration or a launcher says that there are several.

    Args:
      config: of the run, or of a sweep's first.
      line: what the user wrote, which has a sweep's other runs.

    Raises:
      UserError: the others are not the same, or nobody is there.
    """
    if config.get(DISTRIBUTED) is None:  # the command is for one process
        return
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    plain = cast(dict[str, Any], OmegaConf.to_container(own))
    asked = Distributed(**plain.pop(DISTRIBUTED))

    def about() -> dict[str, str]:
        found = {f"configuration of {name}": digest.of_json(value) for name, value in plain.items()}
        found["command line"] = digest.of_json([text for text in line if not _PROCESS_S_OWN.match(text)])
        return found | {"code": code.package_digest(), "version of a library": digest.of_json(manifest.versions())}

    begin(asked, about, part_of(config))


def part_of(config: DictConfig) -> Part | None:
    """What part of a job's processes a configuration is for; None for all.

    Raises:
      UserError: it says no part.
    """
    said = OmegaConf.select(config, "mesh.part")
    return None if said is None else Part.read(said)


class Job:
    """A task as Hydra and its launchers call it: mistakes are one line, and a job of a sweep that fails is noted.

    Attributes:
      task: of one configuration.
      outputs: the folder of runs.
      failures: of the sweep.
      together: does several runs as one, where the command can.
      differ: in which nodes of their configurations those may differ.
    """

    def __init__(
        self,
        task: Task,
        outputs: Path,
        failures: Failures,
        together: Together | None = None,
        differ: Sequence[str] = (),
    ):
        update_wrapper(self, task)
        self.task, self.outputs, self.failures = task, outputs, failures
        self.together, self.differ = together, tuple(differ)

    def __call__(self, config: DictConfig) -> float | None:
        """Runs the task; the number that a sweeper makes small, where the configuration names one."""
        if not _is_sweep():
            return self._run(config)
        with self.failures.noted(lambda: (run_directory(), _called())):
            return self._run(config)

    def _run(self, config: DictConfig) -> float | None:
        # The handlers and the messages here as well as around the command: a launcher may run this in another process.
        with Leaving(), in_one_line(self.outputs):
            join(config)
        with Leaving(), in_one_line(self.outputs), alone(run_directory()), shared(run_directory()), watch.losses():
            # Jobs of a sweep share this process and its devices, and may have other meshes.
            make_room(None if _is_sweep() else config.get("mesh"))
            run = self.prepared(config)
            is_over = outcome.has_ended if _is_sweep() else outcome.is_done
            if not is_over(run.folder, run.asked):
                # A job of a sweep comes behind others in its process, whose time is theirs.
                with goodput.kept(not _is_sweep()), failure.recorded(run.folder, run.asked and run.asked._asdict()):
                    self.task(run.config)
                barrier()  # none ends, or reads, while another is still at work
                if run.asked is not None:
                    outcome.ended(run.folder, run.asked)
            wanted = config.get(FIELD)
            return None if wanted is None else agreed(lambda: objective(run.folder, str(wanted)))

    def prepared(self, config: DictConfig) -> Run:
        """The current run.

        Raises:
          UserError: as :func:`given`.
        """
        own = given(config)
        asked = Asked.of(own.plain) if _is_of_sweep(own) else None
        return Run(own, run_directory(), run_title(), asked, _called())

    def do_together(self, runs: Sequence[Run]) -> None:
        """Does jobs of a sweep as one; what ends one of them is noted.

        Args:
          runs: from :meth:`prepared`.
        """
        assert self.together is not None
        with Leaving(), in_one_line(self.outputs), ExitStack() as stack:
            free = [
                run
                for run in runs
                if self._noted(run, lambda run=run: _entered(stack, run))
                and not outcome.has_ended(run.folder, run.asked)
            ]
            if not free:
                return
            make_room()
            for run in free:
                failure.forget(run.folder)
            left = list(free)
            try:
                stack.enter_context(goodput.kept(False))
                for run in self.together(free):
                    left.remove(run)
                    self._end(run)
            except Exception as error:  # of all that have not ended yet
                for run in left:
                    run.failed = run.failed or error
            for run in left:
                self._end(run)

    def _end(self, run: Run) -> None:
        def end() -> None:
            with failure.recorded(run.folder, run.asked and run.asked._asdict()):
                if run.failed is not None:
                    raise run.failed
            if run.asked is not None:
                outcome.ended(run.folder, run.asked)

        self._noted(run, end)

    def _noted(self, run: Run, act: Callable[[], Any]) -> bool:
        """Whether something of a run went well; what did not is told and noted."""
        done = False
        with self.failures.noted(lambda: (run.folder, run.job)), in_one_line(self.outputs):
            act()
            done = True
        return done


def _entered(stack: ExitStack, run: Run) -> None:
    stack.enter_context(alone(run.folder))
    stack.enter_context(shared(run.folder))


def _called() -> str:
    """What the end of a sweep calls a job of it."""
    chosen = [text for text in HydraConfig.get().overrides.task if not text.startswith(("run=", "outputs="))]
    return f"{run_title()} ({' '.join(chosen)})"


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _is_of_sweep(config: UserConfig) -> bool:
    """Whether a run is a job of a sweep: within ``-m``, or by itself as ``run=SWEEP/JOB``, as engines start it."""
    return _is_sweep() or len(Path(str(config.get("run"))).parts) > 1


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Refuses to work in a folder where another process does.

    Args:
      folder: of a run or of a sweep.

    Raises:
      UserError: another one does, for the length of the block.
    """
    with ExitStack() as stack:
        agreed(lambda: _take(folder, stack))
        yield


def _take(folder: Path, stack: ExitStack) -> None:
    address = stand_ins.address(folder)
    ours = stack.enter_context(lock.held(folder / lock.FILE, wait=False))
    if ours and address is not None:
        ours = stack.enter_context(lease.held(address))
    if not ours:
        raise UserError(f"another process is at work in {folder}: wait until it has ended, or choose another run=NAME.")


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Brings a run's folder from its bucket, and sends what has changed there at the end; one on this machine is left as it is.

    Args:
      folder: of a run, which nobody else is at work in.
    """
    if not mirror.is_mirrored(folder):
        yield
        return
    mirror.fetch(folder, _is_small)
    barrier()  # the leader removes there what an earlier start has left
    try:
        yield
    except BaseException:
        # The others may have gone on. What is on its way comes before a bucket that does not answer.
        with suppress(UserError):
            if is_leader():
                mirror.settle(folder)
        raise
    agreed(lambda: mirror.settle(folder))


def _is_small(name: str) -> bool:
    """Whether a file of a run's folder is read here; Hydra has written its own anew, and models stay where they are."""
    return name.partition("/")[0] not in (".hydra", *mirror.SENT_APART) and not name.endswith(".log")

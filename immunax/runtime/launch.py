"""Turns a function of a configuration into a command: Hydra, with mistakes told in one line.

Exit statuses: 0 done; 1 a bug, with its traceback; 2 a mistake of the user, in one line on standard error; 143 and 130 ended by
SIGTERM and by Ctrl-C, see ``signals``; whatever else the task itself exits with. A sweep goes on behind a job that failed,
and exits with that job's status, see ``sweep``.
"""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from immunax.runtime import code, command_line, digest, failure, lock, manifest, signals, watch
from immunax.runtime.atomic import disk_error, is_full, is_within
from immunax.runtime.distributed import Distributed, begin
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escape_logs, say
from immunax.runtime.host_devices import make_room
from immunax.runtime.leader import is_leader
from immunax.runtime.meeting import EXIT_LOST, LostError
from immunax.runtime.objective import FIELD, objective
from immunax.runtime.overrides import ConfigSource, prepare
from immunax.runtime.signals import EXIT_INTERRUPTED, Leaving, told
from immunax.runtime.sweep import EXIT_BUG, Failures
from immunax.runtime.together import barrier, processes
from immunax.runtime.user_config import UserConfig

EXIT_USER = 2

_MODEL = {"model": ("hf", "path")}
_DISTRIBUTED = "distributed"
_FOLLOWER = ("hydra.output_subdir=null", "hydra/job_logging=stdout")
"""What Hydra is told in every process but the leader, which alone writes into a run's folder."""
Task = Callable[[UserConfig], Any]


def configuration_folder() -> Path:
    """The folder of YAML files: ``conf`` of the source checkout, or the copy inside the installed package.

    Raises:
      UserError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"no configuration beside {package}: install immunax again, or run it from a checkout")


def composed(config_name: str, overrides: Sequence[str]) -> UserConfig:
    """What a command would run with these overrides, checked as there; for programs that are no command.

    Args:
      config_name: of the primary configuration file, such as ``train``.
      overrides: as on the command line.

    Raises:
      UserError: one is wrong.
    """
    source = ConfigSource(configuration_folder(), config_name, None, _MODEL)
    return _given(prepare(source, overrides, ()).config)


def _given(config: DictConfig) -> UserConfig:
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name not in ("hydra", _DISTRIBUTED)])
    try:
        return UserConfig(cast(dict[str, Any], OmegaConf.to_container(own, resolve=True)))
    except InterpolationResolutionError as error:
        place = str(error.full_key)
        wanted = str(error).partition("'")[2].partition("'")[0]
        raise UserError(
            f"{place} is taken from {wanted}, which this configuration does not have: leave {place.partition('.')[0]} out, or "
            f"choose a {wanted.partition('.')[0]} that has it"
        ) from error


def _join(config: DictConfig) -> None:
    """Makes this process one of a job's, where a configuration or a launcher says that there are several."""
    if _DISTRIBUTED not in config:
        return
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    plain = cast(dict[str, Any], OmegaConf.to_container(own))
    asked = Distributed(**plain.pop(_DISTRIBUTED))

    def about() -> dict[str, str]:
        found = {f"configuration of {name}": digest.of_json(value) for name, value in plain.items()}
        return found | {"code": code.package_digest(), "version of a library": digest.of_json(manifest.versions())}

    begin(asked, about)


def run_directory() -> Path:
    """The folder of the current run; only within a command."""
    return Path(HydraConfig.get().runtime.output_dir)


def run_title() -> str:
    """What tables call the current run: its name, with the job's number behind it in a sweep; only within a command."""
    folder = run_directory()
    return f"{folder.parent.name}/{folder.name}" if _is_sweep() else folder.name


def command(
    config_name: str = "config",
    required: Sequence[str] = (),
    folder: Path | None = None,
    fallbacks: Mapping[str, tuple[str, str]] | None = None,
) -> Callable[[Task], Callable[[], None]]:
    """A decorator that makes a command of a task.

    The configuration has the fields ``outputs`` (the root folder of runs) and ``run`` (a run's name, or null to name
    it after the required groups, the model and the seed); the run's folder is ``outputs/run``, and one job of a
    sweep has ``outputs/run/<number>``. The working directory stays.

    Args:
      config_name: of the primary configuration file.
      required: groups the user must choose from, such as ``("defense",)``.
      folder: of the YAML files; ``configuration_folder()`` by default.
      fallbacks: ``{group: (choice, field)}``, see ``overrides.Source``; a path or hub name for ``model`` by default.

    Returns:
      Makes, of a function of the configuration, one without arguments that reads ``sys.argv`` and exits.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @wraps(task)
        def main() -> None:
            _main(task, config_name, required, folder, fallbacks or _MODEL)

        return main

    return decorate


def _main(
    task: Task,
    config_name: str,
    required: Sequence[str],
    folder: Path | None,
    fallbacks: Mapping[str, tuple[str, str]],
) -> None:
    # A line of the log that the disk refuses would print a traceback of its own.
    logging.raiseExceptions = False
    escape_logs()
    with Leaving(), _ended():
        with _told():
            conf = folder or configuration_folder()
            line = command_line.read(sys.argv[1:], ConfigSource(conf, config_name, None, fallbacks), required)
            sys.argv[1:], outputs = line.arguments, line.outputs
            if line.config is not None:
                _join(line.config)
                sys.argv[1:] = [*sys.argv[1:], *([] if is_leader() else _FOLLOWER)]
        # Hydra then leaves exceptions to us, instead of printing a shortened traceback and exiting with 1.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        failures = Failures.of(outputs or Path())
        with _told(outputs), failures:
            job = _guarded(task, outputs, failures)
            hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)(job)()


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    except SystemExit as asked:
        if processes() > 1 and asked.code not in (0, None):
            _leave(asked.code if isinstance(asked.code, int) else EXIT_BUG)
        if signals.is_stop(asked.code):
            signals.end(asked.code)
        raise
    except Exception:
        if processes() == 1:
            raise
        traceback.print_exc()
        _leave(EXIT_BUG)


def _leave(status: int) -> NoReturn:
    """Ends one process of a job with the others: JAX's own end would wait for them."""
    watch.leave(status)
    signals.end(status)


def _guarded(task: Task, outputs: Path | None, failures: Failures) -> Callable[[DictConfig], Any]:
    # The handlers and the messages here as well as outside: a launcher may run this in another process.
    def run(config: DictConfig) -> Any:
        with Leaving(), _told(outputs):
            _join(config)
        with Leaving(), _told(outputs), _alone(run_directory()), watch.losses():
            # Jobs of a sweep share this process and its devices, and may have other meshes.
            make_room(None if _is_sweep() else config.get("mesh"))
            with failure.recorded(run_directory()):
                task(_given(config))
            barrier()  # none ends, or reads, while another is still at work
            wanted = config.get(FIELD)
            return None if wanted is None else objective(run_directory(), str(wanted))

    @wraps(task)
    def noting(config: DictConfig) -> Any:
        if not _is_sweep():
            return run(config)
        with failures.noted(_job):
            return run(config)

    return noting


def _job() -> str:
    """What the end of a sweep calls a job of it."""
    chosen = [text for text in HydraConfig.get().overrides.task if not text.startswith(("run=", "outputs="))]
    return f"{run_title()} ({' '.join(chosen)})"


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuses to work in a run's folder where another process does."""
    if not is_leader():
        yield
        return
    with lock.held(folder / lock.FILE, wait=False) as ours:
        if not ours:
            raise UserError(
                f"another process is at work in {folder}: wait until it has ended, or choose another run=NAME."
            )
        yield


@contextmanager
def _told(outputs: Path | None = None) -> Iterator[None]:
    """Ends the process with one line for what the user can mend, and for an interruption.

    Args:
      outputs: the folder of runs, where it is known.
    """
    try:
        yield
    except KeyboardInterrupt:
        say(told("SIGINT"), error=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        mistake = error if isinstance(error, UserError) else _refusal(outputs, error) or _homeless(error)
        if mistake is None:
            raise
        if watch.first_says(str(mistake)):
            say(f"error: {mistake}", error=True)
        raise SystemExit(EXIT_LOST if isinstance(mistake, LostError) else EXIT_USER) from None


def _refusal(outputs: Path | None, error: Exception) -> UserError | None:
    """What the disk refused to Hydra, which fills a run's folder before the task runs; any other ``OSError`` is a bug's."""
    # The logging module says which of its handlers failed; the disk's own words are the cause.
    cause = error.__cause__ if isinstance(error, ValueError) else error
    if outputs is None or not isinstance(cause, OSError):
        return None
    # Where a file was open already, a full disk is said of no path.
    unnamed = cause.filename is None and is_full(cause)
    if unnamed or is_within(outputs, cause.filename):
        return disk_error(outputs, cause)
    # A file that is missing within is one that a bug looked for.
    if is_within(cause.filename, outputs) and cause.errno != errno.ENOENT:
        return disk_error(str(cause.filename), cause)
    return None


def _homeless(error: Exception) -> UserError | None:
    """What Python says of ``~`` where the user has no home folder, and of ``~NAME`` where there is no such user."""
    if not isinstance(error, RuntimeError) or "home directory" not in str(error):
        return None
    given = [text for text in sys.argv[1:] if "~" in text]
    if not given:
        return UserError("there is no home folder for the cache: set IMMUNAX_CACHE=FOLDER")
    return UserError(f"{given[0]}: there is no such home folder; give the whole path")

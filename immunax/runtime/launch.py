"""Turns a function of a configuration into a command: Hydra, with mistakes told in one line.

Exit statuses: 0 done; 1 a bug, with its traceback; 2 a mistake of the user, in one line on standard error; 143 and 130 ended by
SIGTERM and by Ctrl-C, see ``preemption``; whatever else the task itself exits with. A sweep goes on behind a job that failed,
and exits with that job's status, see ``sweep``.
"""

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from immunax.runtime import lock, names, preemption
from immunax.runtime.atomic import disk_error, is_full, is_within
from immunax.runtime.distributed import is_leader
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escape_logs, say
from immunax.runtime.host_devices import make_room
from immunax.runtime.overrides import ConfigSource, PreparedOverrides, prepare
from immunax.runtime.preemption import EXIT_INTERRUPTED, Leaving, told
from immunax.runtime.sweep import Failures
from immunax.runtime.user_config import UserConfig

EXIT_USER = 2
LOCK = ".lock"
"""A file in a run's folder that whoever works there has locked."""

_MODEL = {"model": ("hf", "path")}
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
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    try:
        return UserConfig(cast(dict[str, Any], OmegaConf.to_container(own, resolve=True)))
    except InterpolationResolutionError as error:
        place = str(error.full_key)
        wanted = str(error).partition("'")[2].partition("'")[0]
        raise UserError(
            f"{place} is taken from {wanted}, which this configuration does not have: leave {place.partition('.')[0]} out, or "
            f"choose a {wanted.partition('.')[0]} that has it"
        ) from error


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
            sys.argv[1:], outputs = _prepare(sys.argv[1:], ConfigSource(conf, config_name, None, fallbacks), required)
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
        if preemption.is_stop(asked.code):
            preemption.end(asked.code)
        raise


def _guarded(task: Task, outputs: Path | None, failures: Failures) -> Callable[[DictConfig], Any]:
    # The handlers and the messages here as well as outside: a launcher may run this in another process.
    def run(config: DictConfig) -> Any:
        with Leaving(), _told(outputs), _alone(run_directory()):
            # Jobs of a sweep share this process and its devices, and may have other meshes.
            make_room(None if _is_sweep() else config.get("mesh"))
            return task(_given(config))

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
    with lock.held(folder / LOCK, wait=False) as ours:
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
        say(f"error: {mistake}", error=True)
        raise SystemExit(EXIT_USER) from None


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


def _prepare(argv: Sequence[str], source: ConfigSource, required: Sequence[str]) -> tuple[list[str], Path | None]:
    """The command line for Hydra (options first, overrides checked, the run's folder set), and the folder of runs.

    The folder is None where nothing is to run.
    """
    args = get_args_parser().parse_intermixed_args(list(argv))
    options = [text for text in argv if text not in args.overrides]
    if args.help or args.hydra_help or args.shell_completion or args.info is not None or args.experimental_rerun:
        return [*options, *args.overrides], None
    if args.config_path is not None:
        raise UserError(f"--config-path {args.config_path}: use --config-dir to add a folder of configuration files")
    source = replace(
        source,
        name=args.config_name or source.name,
        extra=Path(args.config_dir).absolute() if args.config_dir else None,
    )
    prepared = prepare(source, args.overrides, None if args.cfg else required)
    if args.cfg:
        return [*options, *prepared.overrides], None
    sweep = args.multirun or prepared.config.hydra.mode == RunMode.MULTIRUN
    if prepared.sweeps and not sweep:
        raise UserError(
            f"{prepared.sweeps[0].lstrip('+')}: several values need -m, a run for each; quote a value with a comma"
        )
    return [*options, *prepared.overrides, *_folders(prepared, source, required)], Path(str(prepared.config.outputs))


def _check_name(run: str) -> None:
    """Refuses a run's name that is no place of its own within the outputs folder."""
    parts = Path(run).parts
    if not parts or ".." in parts or Path(run).is_absolute():
        raise UserError(
            f"run={run}: leads out of the folder of runs; give a plain name, and set that folder with outputs=DIR"
        )


def _folders(prepared: PreparedOverrides, source: ConfigSource, required: Sequence[str]) -> list[str]:
    """Overrides that name the run and place its folder, where the user has not done so."""
    config = prepared.config
    named = config.get("run") is not None
    if named:
        _check_name(str(config.run))
    chosen = prepared.config.hydra.runtime.choices
    what = ("recipe",) if chosen.get("recipe") not in (None, "null") else required
    parts = ["${hydra:runtime.choices." + group + "}" for group in (*what, "model")] + ["${seed}"]
    for group, (_, field) in (source.fallbacks or {}).items():
        given = {text for text in prepared.overrides if text.startswith(f"{group}.{field}=")}
        if given.difference(prepared.sweeps):
            # A choice that stands for any path says nothing; its last part does.
            slug = re.sub(r"[^A-Za-z0-9._-]+", "_", names.of_model(str(config[group][field])))
            parts = [slug if part.endswith(f".{group}}}") else part for part in parts]
    added = {
        "hydra.job.chdir": "false",
        "hydra.run.dir": "${outputs}/${run}",
        # Unnamed jobs of a sweep have different names where a group or the seed is swept, hence the folder by job.
        "hydra.sweep.dir": "${outputs}/${run}" if named else "${outputs}",
        "hydra.sweep.subdir": "${hydra:job.num}" if named else "${run}/${hydra:job.num}",
    }
    keys = {text.partition("=")[0] for text in prepared.overrides}
    name = [] if named else ["run=" + "-".join(parts)]
    return name + [f"{key}={value}" for key, value in added.items() if key not in keys]

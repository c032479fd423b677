"""Turns a function of a configuration into a command: Hydra, with mistakes told in one line.

Exit statuses: 0 done; 1 a bug, with its traceback; 2 a mistake of the user, in one line on standard error; 143 and 130 ended by
SIGTERM and by Ctrl-C, see ``signals``; 142 another process of the job is lost, or a bucket does not answer; whatever else the
task itself exits with. A sweep goes on behind a job that failed, and exits with that job's status, see ``sweeps.failures``.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path

import hydra

from immunax.runtime import bucket, code, command_line, stand_ins
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.ending import ended_with_others
from immunax.runtime.escaped import escape_logs
from immunax.runtime.job import FOLLOWER, Job, Task, Together, given, join
from immunax.runtime.leader import is_leader
from immunax.runtime.one_line import in_one_line
from immunax.runtime.overrides import ConfigSource, prepare
from immunax.runtime.signals import Leaving
from immunax.runtime.sweeps.engines import check_alone
from immunax.runtime.sweeps.failures import Failures
from immunax.runtime.together import agreed
from immunax.runtime.user_config import UserConfig

_MODEL = {"model": ("hf", "path")}


def composed(config_name: str, overrides: Sequence[str]) -> UserConfig:
    """What a command would run with these overrides, checked as there; for programs that are no command.

    Args:
      config_name: of the primary configuration file, such as ``train``.
      overrides: as on the command line.

    Raises:
      UserError: one is wrong.
    """
    source = ConfigSource(configuration_folder(), config_name, None, _MODEL)
    return given(prepare(source, overrides, ()).config)


def command(
    config_name: str = "config",
    required: Sequence[str] = (),
    folder: Path | None = None,
    fallbacks: Mapping[str, tuple[str, str]] | None = None,
    together: Together | None = None,
    differ: Sequence[str] = (),
) -> Callable[[Task], Callable[[], None]]:
    """A decorator that makes a command of a task.

    The configuration has the fields ``outputs`` (the root folder of runs) and ``run`` (a run's name, or null to name
    it after the required groups, the model and the seed); the run's folder is ``outputs/run``, and one job of a
    sweep has one of its own name in there. The working directory stays.

    Args:
      config_name: of the primary configuration file.
      required: groups the user must choose from, such as ``("defense",)``; ``a|b`` is one of several.
      folder: of the YAML files; ``configuration_folder()`` by default.
      fallbacks: ``{group: (choice, field)}``, see ``overrides.Source``; a path or hub name for ``model`` by default.
      together: does several runs as one, for a command whose runs can be one program.
      differ: in which nodes of their configurations they may differ.

    Returns:
      Makes, of a function of the configuration, one without arguments that reads ``sys.argv`` and exits.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @wraps(task)
        def main() -> None:
            _main(task, config_name, required, folder, fallbacks or _MODEL, together, differ)

        return main

    return decorate


def _check_writable(outputs: Path | None) -> None:
    """Refuses a folder of runs in a bucket that takes nothing, before anything is computed; the leader tries it for all."""
    address = None if outputs is None else stand_ins.address(outputs)
    if address is not None:
        agreed(lambda: bucket.check_writable(address))


def _main(
    task: Task,
    config_name: str,
    required: Sequence[str],
    folder: Path | None,
    fallbacks: Mapping[str, tuple[str, str]],
    together: Together | None,
    differ: Sequence[str],
) -> None:
    # A line of the log that the disk refuses would print a traceback of its own.
    logging.raiseExceptions = False
    code.as_begun()
    escape_logs()
    with Leaving(), ended_with_others():
        with in_one_line():
            conf = folder or configuration_folder()
            written = sys.argv[1:]
            line = command_line.read(written, ConfigSource(conf, config_name, None, fallbacks), required)
            if line.told is not None:
                print(line.told)
                return
            sys.argv[1:], outputs = line.arguments, line.outputs
            if line.config is not None:
                join(line.config, written)
                _check_writable(line.outputs)
                check_alone(line.config)
                sys.argv[1:] = [*sys.argv[1:], *([] if is_leader() else FOLLOWER)]
        # Hydra then leaves exceptions to us, instead of printing a shortened traceback and exiting with 1.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        failures = Failures.of(outputs or Path())
        with in_one_line(outputs), failures:
            job = Job(task, outputs or Path(), failures, together, differ)
            hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)(job)()

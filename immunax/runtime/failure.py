"""What ended a run before its time, in the run's folder, for whoever reads many runs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from immunax.runtime import atomic, manifest, mirror
from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.escaped import escaped
from immunax.runtime.leader import is_leader

FILE = "failure.json"


@contextmanager
def recorded(folder: Path, asked: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Leaves a line of what is raised within the block, a signal's end apart; an earlier one goes as the block begins.

    The line says apart whether numbers were no longer finite: a run that diverged is a result.

    Args:
      folder: of the run.
      asked: what the run was asked for, to be left with the line.
    """
    forget(folder)
    try:
        yield
    except Exception as error:
        _note(folder, error, asked)
        raise


def forget(folder: Path) -> None:
    """Removes what an earlier start of a run has left.

    Args:
      folder: of the run.
    """
    with suppress(OSError):
        if is_leader():
            mirror.remove(folder / FILE)


def _note(folder: Path, error: Exception, asked: Mapping[str, Any] | None) -> None:
    line = str(error) if isinstance(error, UserError) else escaped(f"{type(error).__name__}: {error}")
    record = {"line": line, "diverged": isinstance(error, DivergedError), "at": manifest.now()}
    if is_leader():
        with suppress(UserError, OSError), atomic.file(folder / FILE) as temp:  # the disk may be what failed
            temp.write_text(json.dumps(record if asked is None else {**record, "asked": asked}) + "\n")

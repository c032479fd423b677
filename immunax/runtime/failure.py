"""What ended a run before its time, in the run's folder, for whoever reads many runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from immunax.runtime import atomic, manifest
from immunax.runtime.distributed import is_leader
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escaped

FILE = "failure.json"


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Leaves a line of what is raised within the block, a signal's end apart; an earlier one goes as the block begins.

    Args:
      folder: of the run.
    """
    with suppress(OSError):
        if is_leader():
            (folder / FILE).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        _note(folder, error)
        raise


def _note(folder: Path, error: Exception) -> None:
    line = str(error) if isinstance(error, UserError) else escaped(f"{type(error).__name__}: {error}")
    if is_leader():
        with suppress(UserError, OSError), atomic.file(folder / FILE) as temp:  # the disk may be what failed
            temp.write_text(json.dumps({"line": line, "at": manifest.now()}) + "\n")

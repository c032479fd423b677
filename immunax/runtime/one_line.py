"""What the user can mend is told in one line, without a traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from immunax.runtime import watch
from immunax.runtime.atomic import disk_error, is_full, is_within
from immunax.runtime.errors import UnreachableError, UserError
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_INTERRUPTED, EXIT_LOST, EXIT_USER
from immunax.runtime.meeting import LostError
from immunax.runtime.signals import told


@contextmanager
def in_one_line(outputs: Path | None = None) -> Iterator[None]:
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
        raise SystemExit(EXIT_LOST if isinstance(mistake, (LostError, UnreachableError)) else EXIT_USER) from None


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

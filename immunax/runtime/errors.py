"""The one exception that means "the user can mend this"."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from immunax.runtime.escaped import escaped


class UserError(Exception):
    """A mistake in what the user gave: ``str(error)`` is one line that names the thing, what was expected and the fix.

    Entry points print that line and exit with status 2; every other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class RefusedError(UserError):
    """A write that a disk or a bucket refuses, for want of room or of permission, where the place is one for it."""


class UnreachableError(UserError):
    """A bucket that does not answer."""


class DivergedError(UserError):
    """Numbers that are no longer finite. The same run would meet them again: that is how it came out, and is counted apart."""


def shown(value: Any, most: int = 80) -> str:
    """A value of a stranger's file as it may stand in a message.

    Args:
      value: plain, of any size.
      most: characters.
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def refused(error: OSError) -> UserError:
    """What the operating system refused, in one line: a path that no file can have, or that may not be reached."""
    where = "the system" if error.filename is None else shown(str(error.filename), 200)
    return UserError(f"{where}: {error.strerror or type(error).__name__}; check the path and its permissions.")


def close_behind(error: object, close: Callable[[], None]) -> None:
    """Closes at the end of a ``with`` block, whose own exception comes before one of closing.

    Args:
      error: what ``__exit__`` is told is on its way, None where nothing is.
      close: may raise.
    """
    try:
        close()
    except Exception:
        # What is on its way already came first, and is often the cause of this one.
        if error is None:
            raise


def nearest(name: str, choices: Iterable[str]) -> str:
    """A suggestion to append to an error message.

    Args:
      name: what the user wrote.
      choices: the names that exist.

    Returns:
      ``" Did you mean 'x'?"`` for the closest choice, or ``""`` when none is close.
    """
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuses an option that is none of those there are.

    Args:
      name: the option's, as the user writes it.
      value: what it was set to.
      choices: what it may be.

    Raises:
      UserError: it is none of them.
    """
    known = tuple(choices)
    if value not in known:
        raise UserError(f"{name}={value!r}: expected one of {', '.join(known)}.{nearest(str(value), known)}")

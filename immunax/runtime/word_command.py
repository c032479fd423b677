"""A command whose line is words, ``NAME WORD=VALUE ...``, read without Hydra: help on request, and mistakes in one line."""

import sys
from collections.abc import Callable, Sequence

from immunax.runtime.errors import UserError, refused
from immunax.runtime.escaped import escape_logs, say
from immunax.runtime.exits import EXIT_USER


def run(arguments: Sequence[str] | None, explained: str, do: Callable[[Sequence[str]], None]) -> int:
    """Does what a line asks for.

    Args:
      arguments: of the command line; the process's own by default.
      explained: what ``--help`` shows.
      do: gets the words; its ``UserError``, or the system's refusal, is one line on standard error.

    Returns:
      The exit status: 0, or 2 for a mistake.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(words):
        print(explained)
        return 0
    escape_logs()
    try:
        do(words)
    except (UserError, OSError) as error:
        say(f"error: {refused(error) if isinstance(error, OSError) else error}", error=True)
        return EXIT_USER
    return 0

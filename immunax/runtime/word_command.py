"""A command whose line is words, ``NAME WORD=VALUE ...``, read without Hydra: help on request, and mistakes in one line."""

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from immunax.runtime.errors import UserError, nearest, refused
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


def sorted_out(
    words: Sequence[str],
    known: Collection[str],
    value: Callable[[str, str], object],
    flags: Sequence[str] = (),
    again: str = "give it once",
) -> tuple[dict[str, object], list[str]]:
    """The words of a line as options and all others, which are paths.

    Args:
      words: as the user wrote them.
      known: names of options, as in ``NAME=VALUE``.
      value: makes a value of an option's name and text.
      flags: what else begins with a dash, beside ``--help``.
      again: what to do where an option is given twice.

    Returns:
      Values by name, those of flags True; and the others, in order.

    Raises:
      UserError: one is unknown or is given twice, or ``value`` raises it.
    """
    given: dict[str, object] = {}
    others = []
    for word in words:
        key, equals, text = word.partition("=")
        if word in flags:
            given[word.lstrip("-")] = True
        elif word.startswith("-"):
            raise UserError(f"{word}: no such option.{nearest(word, (*flags, '--help'))}")
        elif equals and key in known:
            if key in given:
                raise UserError(f"{key}= is given twice; {again}.")
            given[key] = value(key, text)
        elif equals and key.isidentifier() and not Path(word).exists():
            raise UserError(f"{key}: no such option.{nearest(key, known)} There is: {', '.join(known)}.")
        else:
            others.append(word)
    return given, others

"""``python -m immunax [NAME ...]``, or ``immunax [NAME ...]``: the commands, one line each; or one of them.

``immunax NAME ...`` becomes ``python -m immunax.NAME ...``, process, arguments and exit status alike. A command is a module of
this package with that line at its head: nothing else lists them, and none of them is imported for the help.
"""

import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from immunax.runtime.errors import nearest
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_USER

_HELP = """\
immunax NAME ...    or python -m immunax NAME ...

Train language models whose safeguards survive fine-tuning, and certify how far they do.

{commands}

Begin with

  immunax train +defense=rep_noise                        # immunize a small real model, attack it, compare: ten minutes of a CPU
  immunax attack model=PATH_OR_ID +attack=harmful_sft     # attack any checkpoint

immunax NAME --help tells more of each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows the commands, or becomes one.

    Args:
      arguments: of the command line; the process's own by default.

    Returns:
      The exit status, where no command is run.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    told = commands()
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, told))
        print(_HELP.format(commands="\n".join(f"  {name:<{width}}  {line}" for name, line in told.items())))
        return 0
    name, *rest = words
    if name not in told:
        say(f"error: no command {name!r}.{nearest(name, told)} There is: {', '.join(told)}.", error=True)
        return EXIT_USER
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *_flags(), "-m", f"immunax.{name}", *rest])


def commands() -> dict[str, str]:
    """What each command does, by name: the end of the first line of its module."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        found[path.stem] = first.rpartition("``: ")[2].rstrip(".")
    return found


def _flags() -> list[str]:
    """Those that Python itself was given, such as ``-P``; a script's are its own."""
    given = sys.orig_argv[1:]
    return given[: given.index("-m")] if "-m" in given[: len(given) - len(sys.argv) + 1] else []


if __name__ == "__main__":
    sys.exit(main())

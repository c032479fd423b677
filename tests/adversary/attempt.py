"""An attempt of a cheat: a program that makes a forgery, what it is shown to, and how it has to be told."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adversary import commands

CANARY = "foreign-code-ran"
"""A file that hostile code makes in the attempt's folder where it is run."""


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Attributes:
      name: a sentence about the cheat.
      forge: builds the forgery in an empty folder, and returns what is run on it: the name of a command of
        :mod:`adversary.commands` and its arguments.
      status: the exit status that tells it; None where any will do, as for a row of a page.
      told: a regular expression that one line of output has to match.
      finding: of the list of known attempts that it is from, such as ``B3``; empty for further ones.
      slow: whether it trains a model, in processes of its own.
    """

    name: str
    forge: Callable[[Path], Sequence[object]]
    status: int | None
    told: str
    finding: str = ""
    slow: bool = False


class Outcome(NamedTuple):
    """What came of an attempt.

    Attributes:
      ran: the command.
      status: its exit status.
      told: the line that tells of it, or what came in its place.
      caught: whether it was told as it has to be, nothing foreign ran, and no line is a stranger's.
    """

    ran: str
    status: int
    told: str
    caught: bool


def run(attempt: Attempt, folder: Path) -> Outcome:
    """Makes the forgery in an empty folder, and shows it to the command."""
    name, *arguments = attempt.forge(folder)
    found = commands.run(str(name), list(map(str, arguments)), folder)
    lines = found.text.split("\n")
    told = next((line for line in lines if re.search(attempt.told, line)), None)
    faults = [
        (f"a line that is not printable: {line!r}" for line in lines if not line.isprintable()),
        (f"foreign code ran in {path.parent.name}" for path in folder.rglob(CANARY)),
        ("a traceback" for line in lines if line.startswith("Traceback")),
        (f"status {found.status}" for _ in [0] if attempt.status not in (None, found.status)),
        (f"not told: {' / '.join(lines)[-300:]}" for _ in [0] if told is None),
    ]
    wrong = next((fault for each in faults for fault in each), None)
    return Outcome(str(name), found.status, wrong or str(told), wrong is None)

"""What a process does that measures one side of one case: it writes what it found to a file, or why there is nothing."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerated.record import DONE, FAILED

Found = Callable[[str, str, bool], dict[str, Any]]
"""``found(case, side, tiny)``: fields of a :class:`~accelerated.record.Row`."""


def main(about: str, found: Found, facts: Callable[[], dict[str, Any]]) -> None:
    """Reads ``CASE SIDE FILE [--tiny]``, and exits with 1 where there is no row.

    Args:
      about: the program's docstring.
      found: measures; whatever it raises is told in the row.
      facts: of the device and what runs on it.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("side")
    parser.add_argument("file", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    row: dict[str, Any] = {}
    try:
        row["facts"] = facts()
        row |= {"status": DONE, **found(options.case, options.side, options.tiny)}
    except Exception as error:
        traceback.print_exc()
        row |= {"status": FAILED, "reason": f"{type(error).__name__}: {error}"}
    beside = options.file.with_suffix(".part")
    beside.write_text(json.dumps(row))
    os.replace(beside, options.file)
    sys.exit(row["status"] == FAILED)

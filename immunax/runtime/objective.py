"""The number that a sweeper makes small, out of what a run has left."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immunax.runtime import manifest
from immunax.runtime.errors import UserError, nearest

FIELD = "objective"


def objective(folder: Path, path: str) -> float:
    """A number of a run's manifest.

    Args:
      folder: of the run, which has ended.
      path: its names, with points between, as ``results.immunized.after.refusal``; a ``-`` before it takes the opposite, to make
        the number large.

    Returns:
      The number; of an estimate its value, and infinity where it has none, as of a run that diverged.

    Raises:
      UserError: there is no such number.
    """
    node: Any = manifest.read(folder)
    names = path.removeprefix("-").split(".")
    for place, name in enumerate(names):
        if not isinstance(node, Mapping) or name not in node:
            known = list(node) if isinstance(node, Mapping) else []
            raise UserError(
                f"{FIELD}={path}: {'.'.join(names[:place]) or 'a manifest'} has no {name!r}.{nearest(name, known)} "
                f"There is: {', '.join(map(str, known)) or 'nothing'}."
            )
        node = node[name]
    value = node.get("value", node) if isinstance(node, Mapping) else node
    if isinstance(value, (bool, str, list, Mapping)):
        raise UserError(f"{FIELD}={path}: is no number; choose one, such as results.immunized.after.refusal.")
    sign = -1.0 if path.startswith("-") else 1.0
    return math.inf if value is None or not math.isfinite(value) else sign * float(value)

"""Under which conditions runs were made, in a few lines."""

from collections.abc import Sequence
from typing import Any

from immunax.runs.frame import Frame
from immunax.runs.tables import text

_NAMES = {
    "versions.jax": "jax",
    "platform.backend": "backend",
    "platform.device_kind": "device",
    "platform.devices": "devices",
    "git.commit": "commit",
    "seed": "seeds",
    "digests.data": "data",
    "digests.weights": "weights",
}
_COMMIT, _DIRTY = "git.commit", "git.dirty"
_WALL, _SHARED = "goodput.wall", "goodput.runs"
_MOST = 12
_LETTERS = 12
"""Of a digest."""


def provenance(runs: Frame) -> str:
    """What tables rest on: how many runs, their seeds, versions, devices and digests, and the wall time of all.

    Args:
      runs: a row each.
    """
    told = [f"{len(runs.rows)} runs"]
    for name, word in _NAMES.items():
        values = sorted({text(value) for value in _known(runs, name)})
        short = [value[:_LETTERS] if name.startswith(("git", "digests")) else value for value in values]
        if short:
            changed = " (changed)" if name == _COMMIT and True in _known(runs, _DIRTY) else ""
            told.append(f"{word} {', '.join(short[:_MOST])}{', ...' if len(short) > _MOST else ''}{changed}")
    # Runs of one program share their seconds.
    walls = [float(row.get(_WALL) or 0) / float(row.get(_SHARED) or 1) for row in runs.rows]  # pyright: ignore[reportArgumentType]
    told.append(f"{sum(walls) / 3600:.2f} hours of wall time in all")
    return f"{'; '.join(told)}.\n"


def _known(runs: Frame, name: str) -> Sequence[Any]:
    return [] if name not in runs.names else [value for value in runs.column(name).values if value is not None]

"""Names that tell models and runs apart, made of paths whose last part often says nothing."""

import re
from pathlib import Path, PurePosixPath

_TELLS_NOTHING = re.compile(
    r"model|start|adapter|export|final|merged|best|last|latest|output|checkpoint(-\d+)?", re.IGNORECASE
)
_USUAL = "model"
"""The folder of an export that is not worth a word."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""Of a repository, without a revision."""
_HUB_FOLDER = re.compile(r"models--(?:.+--)?(.+)")


def of_model(path: str) -> str:
    """What to call the model at a path.

    Args:
      path: a file, a folder or a Hub id, with ``@revision`` or without.

    Returns:
      Its last part that tells models apart, such as the run's name, with the parts behind it that do not, as ``RUN-start`` or
      ``RUN-checkpoint-500``, but for a plain ``model``; the repository of a snapshot in the Hub's cache. A folder named by such
      parts alone is looked for from the root on.
    """
    named = Path(path).expanduser()
    parts = _parts(named)
    if all(map(_TELLS_NOTHING.fullmatch, parts)) and named.exists():
        parts = _parts(named.resolve()) or [str(named.resolve())]
    for part in parts:
        repository = _HUB_FOLDER.fullmatch(part)
        if repository:
            return repository[1]
    telling = next((place for place in reversed(range(len(parts))) if not _TELLS_NOTHING.fullmatch(parts[place])), 0)
    behind = [part for part in parts[telling + 1 :] if part.lower() != _USUAL]
    return "-".join([parts[telling], *behind])


def in_path(text: str) -> str:
    """A text as one part of a path: what a shell or a disk may take for more is ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def _parts(path: Path) -> list[str]:
    return [part for part in PurePosixPath(path.as_posix()).parts if part not in ("/", ".", "..")]

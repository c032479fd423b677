"""Names that tell models and runs apart, made of paths whose last part often says nothing."""

import re
from pathlib import Path, PurePosixPath

_TELLS_NOTHING = re.compile(
    r"model|adapter|export|final|merged|best|last|latest|output|checkpoint(-\d+)?", re.IGNORECASE
)
_HUB_FOLDER = re.compile(r"models--(?:.+--)?(.+)")


def of_model(path: str) -> str:
    """What to call the model at a path.

    Args:
      path: a file, a folder or a Hub id, with ``@revision`` or without.

    Returns:
      Its last part that tells models apart: the run of an exported ``model``, with a checkpoint's number behind; the
      repository of a snapshot in the Hub's cache; else simply the last part.
    """
    parts = [part for part in PurePosixPath(Path(path).expanduser().as_posix()).parts if part not in ("/", ".", "..")]
    for part in parts:
        repository = _HUB_FOLDER.fullmatch(part)
        if repository:
            return repository[1]
    if not parts:
        return Path(path).resolve().name
    if len(parts) == 1 or not _TELLS_NOTHING.fullmatch(parts[-1]):
        return parts[-1]
    return parts[-2] if parts[-1].lower() == "model" else f"{parts[-2]}-{parts[-1]}"

"""Files that every process of a job reads: one reads all of them for their digests, the others show that theirs look the same."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from immunax.runtime import mirror, together
from immunax.runtime.errors import UserError

_SAMPLES = 64
_SAMPLE_BYTES = 1 << 12


def digested(folder: Path, names: Callable[[], Iterable[str]], digests: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Digests of a model's files, by process 0 for all: hashing a large model would take minutes of every host.

    Others may have copies of their own, of which each reads what its devices hold. They are told apart by their sizes and by
    bytes here and there: of two models of one architecture nearly all differ.

    Args:
      folder: of the files, on a disk or for a bucket.
      names: finds those of the files, relative to it, where they are to be looked at.
      digests: reads them.

    Returns:
      SHA-256 by name.

    Raises:
      UserError: a process has other files than process 0; or as ``digests``.
    """
    if together.processes() > 1 and not mirror.is_mirrored(folder):
        looks = together.gathered({name: look(folder / name) for name in names()})
        for index, own in enumerate(looks):
            changed = sorted(name for name in own | looks[0] if own.get(name) != looks[0].get(name))
            if changed:
                raise UserError(
                    f"{folder / changed[0]} of process {index} is not that of process 0: copy it again, or give a folder that "
                    "all of them share."
                )
    return together.agreed(digests)


def look(file: Path) -> str | None:
    """SHA-256 of a file's size and of pieces evenly spaced in it, from its first to its last byte; None where there is none."""
    if not file.is_file():
        return None
    size = file.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with file.open("rb") as source:
        for place in range(_SAMPLES):
            source.seek(max(0, size - _SAMPLE_BYTES) * place // (_SAMPLES - 1))
            found.update(source.read(_SAMPLE_BYTES))
    return found.hexdigest()

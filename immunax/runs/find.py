"""Where runs are below a folder: sweeps within sweeps, half-made ones too, and nothing of what a run has made."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from immunax.certificate import statement
from immunax.runtime import failure, lock, manifest, mirror
from immunax.runtime.errors import UserError

MARKS = frozenset({manifest.FILE, failure.FILE, lock.FILE, statement.FILE})
"""Files of which a run's folder has one: the lock from its first moment, the manifest before it computes."""

SWEEP = "multirun.yaml"
"""What Hydra leaves in a sweep's folder as it begins."""

_MADE = frozenset({"model", "start", "adapter", "checkpoints", "cells", "tensorboard", "wandb"})
"""Folders in a run's own in which no run is, and that may hold thousands of files."""


class Place(NamedTuple):
    """A run's folder.

    Attributes:
      folder: its path.
      name: below the folder that was given, as tables call the run.
    """

    folder: Path
    name: str


class Found(NamedTuple):
    """What is below some folders.

    Attributes:
      places: by name.
      sweeps: folders that a sweep was started in.
      faults: one line for each folder that cannot be listed.
    """

    places: tuple[Place, ...]
    sweeps: tuple[Path, ...]
    faults: tuple[str, ...]


def runs_below(roots: Sequence[Path]) -> Found:
    """Every run at or below some folders. Links to folders are followed where they are given, and not below.

    Args:
      roots: folders; where there are several, names begin with them as they were given.

    Raises:
      UserError: one of them is no folder.
    """
    places: dict[str, Place] = {}
    sweeps: dict[str, Path] = {}
    faults = []
    for root in roots:
        mirror.fetch(root, _is_read)
        if not root.is_dir():
            what = "is a file; give the folder that it lies in" if root.exists() else "is not there; check the path"
            raise UserError(f"{root}: {what}.")
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError as error:
                faults.append(f"{folder}: cannot be listed ({error.strerror}); its runs are left out.")
                continue
            is_run = any(entry.name in MARKS for entry in entries)
            if is_run:
                place = Place(folder, _name(folder, root, len(roots) == 1))
                places.setdefault(os.path.realpath(folder), place)
            if any(entry.name == SWEEP for entry in entries):
                sweeps.setdefault(os.path.realpath(folder), folder)
            skipped = _MADE if is_run else ()
            waiting += [
                folder / entry.name
                for entry in reversed(entries)
                if entry.name not in skipped and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    return Found(tuple(places.values()), tuple(sweeps.values()), tuple(faults))


def _is_read(name: str) -> bool:
    """Whether a file of a bucket is looked at here."""
    return not any(part in _MADE - {"cells"} or part.startswith(".") for part in name.split("/"))


def _name(folder: Path, root: Path, alone: bool) -> str:
    if not alone:
        return mirror.named(folder)
    return str(folder.relative_to(root)) if folder != root else root.resolve().name

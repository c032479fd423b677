"""Whose data an attack had: examples of its own, or those that the attacked model's defense was trained on."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from immunax.data.dialog import SHARED, Splits
from immunax.runtime import console, digest, manifest
from immunax.runtime.errors import UserError
from immunax.stages.setup import build

EXPORT = "model"
"""The folder of a run of ``immunax.train`` that holds the exported model: what is released, and so what is certified."""


def made_by(path: str | Path | None) -> Mapping[str, Any] | None:
    """The manifest of the run of ``immunax.train`` that made a model, or None.

    Args:
      path: of the run, or of the model that it exported; of anything else, or None, no run is known.

    Raises:
      UserError: the manifest cannot be read.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    for run in (folder, folder.parent) if folder.name == EXPORT else (folder,):
        if (run / manifest.FILE).is_file():
            record = manifest.read(run)
            return record if "defense" in record["config"] else None
    return None


def attackers_data(record: Mapping[str, Any] | None, splits: Splits, found: str) -> str:
    """``own`` where no prompt of the attackers is one that the model was trained on, ``shared`` where some are or may be.

    Args:
      record: the manifest of the run that made the model; None where there is none, and the splits' own ``train`` is what counts.
      splits: the data of the attacks.
      found: their digest, as a :class:`~immunax.stages.setup.Setup` has it.
    """
    if record is None or splits.attacker == SHARED or found == record["digests"].get("data"):
        return splits.attacker
    try:
        trained = build(OmegaConf.create(dict(record["config"])).data).splits()
    except UserError as error:
        console.note(f"what the run trained on cannot be read, so attackers may have some of it: {error}")
        return SHARED
    if digest.of_json(asdict(trained)) != record["digests"].get("data"):
        console.note("the run trained on data that its configuration no longer makes: attackers may have some of them")
        return SHARED
    return replace(splits, train=trained.train).attacker


def marked(name: str, whose: str) -> str:
    """A run's name as titles show it: with a mark where attackers had the defense's data."""
    return f"{name} (attack data {whose})" if whose == SHARED else name

"""Whose data an attack had: examples of its own, or those that the attacked model's defense was trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from immunax.attacks.attack import Attack
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.data.dialog import OWN, SHARED, Split, Splits
from immunax.runtime import console, digest, manifest
from immunax.runtime.errors import UserError
from immunax.stages.export import ADAPTER, MODEL
from immunax.stages.setup import build


def made_by(path: str | Path | None) -> Mapping[str, Any] | None:
    """The manifest of the run of ``immunax.train`` that made a model, or None.

    Args:
      path: of the run, of the model or of the adapters that it exported, or a link to one; of anything else, None and the start
        model beside its adapters among it, no run is known.

    Raises:
      UserError: the manifest cannot be read.
    """
    if path is None:
        return None
    named = Path(path).expanduser()
    # A link may lead to a run, or stand in one whose weights lie on another disk.
    for run in (run for folder in (named.resolve(), named.absolute()) for run in _runs(folder)):
        if (run / manifest.FILE).is_file():
            record = manifest.read(run)
            return record if "defense" in record["config"] else None
    return None


def _runs(folder: Path) -> tuple[Path, ...]:
    """The folders of runs that a folder may be of."""
    return (folder, folder.parent) if folder.name in (MODEL, ADAPTER) else (folder,)


def attackers_data(
    record: Mapping[str, Any] | None,
    splits: Splits,
    found: str,
    attacks: Iterable[Attack | Population | Search],
) -> str:
    """``own`` where no prompt of the attackers is one that the model was trained on, ``shared`` where some are or may be.

    Args:
      record: the manifest of the run that made the model; None where there is none, and the splits' own ``train`` is what counts.
      splits: the data of the run.
      found: their digest, as a :class:`~immunax.stages.setup.Setup` has it.
      attacks: all of them; corpora of their own count as the run's data do, which they may be translations of.
    """
    read = [splits, *(corpus.splits() for corpus in _corpora(attacks))]
    if any(each.attacker == SHARED for each in read):
        return SHARED
    trained = splits.train if record is None else _trained(record, splits, found)
    if trained is None or any(replace(each, train=trained).attacker == SHARED for each in read):
        return SHARED
    return OWN


def _corpora(attacks: Iterable[Attack | Population | Search]) -> Iterable[Any]:
    """The corpora that attacks bring along, each once."""
    members = [member for each in attacks for member in ((each,) if isinstance(each, Attack) else each.members())]
    return {repr(corpus): corpus for member in members for corpus in member.corpora()}.values()


def _trained(record: Mapping[str, Any], splits: Splits, found: str) -> Split | None:
    """What a run trained its model on; None where nobody can tell any more, which is said."""
    if found == record["digests"].get("data"):
        return splits.train
    try:
        made = build(OmegaConf.create(dict(record["config"])).data).splits()
    except UserError as error:
        console.note(f"what the run trained on cannot be read, so attackers may have some of it: {error}")
        return None
    if digest.of_json(asdict(made)) != record["digests"].get("data"):
        console.note("the run trained on data that its configuration no longer makes: attackers may have some of them")
        return None
    return made.train


def marked(name: str, whose: str) -> str:
    """A run's name as titles show it: with a mark where attackers had the defense's data."""
    return f"{name} (attack data {whose})" if whose == SHARED else name

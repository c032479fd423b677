"""What a cheat who knows the format does: takes a good certificate or model, changes it, and makes everything else fit again."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import certified
import tiny_model
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from immunax.certificate import facts, judge_cards, pages, signing
from immunax.certificate.reproduce import reproduce
from immunax.certificate.statement import FILE, canonical, own_digest, verdicts_to_json
from immunax.certificate.verify import CELLS, RECORDS, assessed, policy_from_json, tables
from immunax.conditions.records import NEUTRAL, OWN_TEMPLATE, SPECIAL, SUBJECT, Table, write
from immunax.runtime.digest import of_file
from immunax.runtime.errors import UserError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Of the organiser; a forger does not have it."""

Said = dict[str, Any]

BROKEN = (UserError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What computing anew ends with, where nothing follows from what is said."""


def good(
    folder: Path, attacker: str = "own", weights: bytes = bytes(range(200)), attack: Any = None, full: bool = False
) -> Path:
    """A certificate as it should be, signed, with its pages, its model in ``model`` and the organiser's key beside it.

    Args:
      folder: to be made.
      attacker, weights, attack, full: for :func:`certified.certificate`.
    """
    shutil.copytree(_good(attacker, weights, json.dumps(attack), full), folder)
    return folder / FILE


@cache
def _good(attacker: str, weights: bytes, attack: str, full: bool) -> Path:
    folder = Path(mkdtemp()) / "c"
    certified.with_pages(certified.certificate(folder, KEY, weights, attacker, json.loads(attack), full=full))
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub.pem").write_bytes(public)
    return folder


def drawn(stated: Said, folder: Path) -> dict[str, bytes]:
    """The pages of a statement with the tables of a folder, by file."""
    return pages.drawn(stated, *tables(folder))


def read(path: Path) -> Said:
    """The statement."""
    return json.loads(path.read_bytes())


def stated(path: Path, change: Callable[[Said], object]) -> Path:
    """Changes the predicate, and computes its digest anew: no more."""
    found = read(path)
    change(found["predicate"])
    return put(path, found)


def put(path: Path, found: Said) -> Path:
    """Writes a statement with the digest that it has to have, in the one form; a signature that is no longer its own is gone."""
    (path.parent / signing.FILE).unlink(missing_ok=True)
    found["predicate"]["digest"]["sha256"] = own_digest(found)
    path.write_bytes(canonical(found))
    return path


def tabled(path: Path, name: str, change: Callable[[Table], Table]) -> Path:
    """Changes a table, and everything in the statement that follows from it."""
    at = [RECORDS, CELLS].index(name)
    write(path.parent / name, change(tables(path.parent)[at]))
    return sealed(path)


def sealed(path: Path) -> Path:
    """Computes all anew that follows from the tables and the configuration; not the pages."""
    return put(path, consistent(path.parent, read(path)))


def consistent(folder: Path, found: Said) -> Said:
    """A statement in which everything that follows from its tables, configuration and subject does so.

    Args:
      folder: of the tables.
      found: the statement; changed in place.
    """
    said = found["predicate"]
    config = said["suite"]["config"]
    records, cells = tables(folder)
    for entry, table in zip(said["records"], (records, cells), strict=True):
        entry.update(rows=len(table), digest={"sha256": of_file(folder / entry["name"])})
    said["seed"], said["suite"]["name"] = config["seed"], config["suite"]["name"]
    said["policy"] = facts.policy_of(config)
    said["templates"] = [NEUTRAL] if said["speech"]["model"]["template"] is None else [OWN_TEMPLATE, NEUTRAL]
    if said["reference"]:
        said["reference"]["named_by"] = facts.named_by(config)
    known, named = facts.undefended_of(said)
    said["undefended"] = (named or said["undefended"] or "8" * 64) if known else None
    found["subject"].sort(key=lambda each: each["name"])
    said["judges"] = _judges(said)
    said["attacks"] = _attacks(said, cells)
    verdicts = assessed(folder, found)
    said["verdicts"] = verdicts_to_json(verdicts)
    said["limits"] = facts.limits_of(said, policy_from_json(said["policy"]), verdicts)
    said["reproduce"] = reproduce(config)
    return found


def _judges(said: Said) -> list[Said]:
    """Of the judges that ship their own cards, of others those that were there."""
    nodes, before = said["suite"]["config"]["judge"]["judges"], {each["called"]: each for each in said["judges"]}
    foreign = judge_cards.unshipped({**said, "judges": [{"called": name} for name in nodes]})
    return [
        before[name] if name in foreign else {"called": name, **json.loads(_card(json.dumps(nodes[name])))}
        for name in dict.fromkeys([*(name for name in before if name in nodes), *nodes])
    ]


@cache
def _card(node: str) -> str:
    return json.dumps(judge_cards._own(json.loads(node)).as_json())


def _attacks(said: Said, cells: Table) -> list[Said]:
    """The list of attacks that follows: whether one could not be rendered is the forger's word, for which he has cells or not."""
    families, counts = facts.exposed_families(said), _counts(cells)
    before = {each["family"]: each for each in said["attacks"]}
    return [
        {
            "family": name,
            "exposure": families[name].trained,
            "held_out": families[name].held_out,
            "cells": counts.get(name, 0),
            # A family that was not run is one that could not be.
            "skipped": None if counts.get(name) else before.get(name, {}).get("skipped") or "it did not fit",
            "unmeasured": before.get(name, {}).get("unmeasured"),
        }
        for name in dict.fromkeys([*(name for name in before if name in families), *families])
    ]


def _counts(cells: Table) -> Mapping[str, int]:
    mine = cells[(cells["model"] == SUBJECT) & ~cells["family"].isin(SPECIAL)].drop_duplicates("cell")
    return {str(name): int(count) for name, count in mine["family"].value_counts().items()}


def model(folder: Path) -> Path:
    """A whole tiny model."""
    return Path(shutil.copytree(_model(), folder))


@cache
def _model() -> Path:
    return tiny_model.write(Path(mkdtemp()) / "model")


def edited(path: Path, **fields: Any) -> None:
    """Changes fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

"""Attacks that others sent: a file of plain values, admitted by a table of our own classes and held to stated amounts.

An organiser's own attack may be any Python that he chose to run; one that he was sent is data. It is read, checked and put into
the configuration as the plain values that it is, so that a certificate records it as every other family, and a replay needs no
file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunax.attacks.attack import Attack
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.runtime.admission import admit
from immunax.runtime.catalogue import for_attacks
from immunax.runtime.errors import UserError
from immunax.runtime.fields import TARGET
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import Limits, parse_yaml
from immunax.runtime.user_config import UserConfig

LIMITS = Limits(size=1 << 16, depth=16, values=2_000, text=4_096)
"""Of a file; the longest search that ships takes a twentieth of it."""

MEMBERS = 64
"""The most attacks of one file: settings times seeds, over all of a search's populations."""

AMOUNTS = {
    "epochs": 100,
    "max_steps": 2_000,
    "steps": 1_000,
    "batch_size": 512,
    "max_length": 4_096,
    "tokens": 256,
    "rank": 512,
}
"""The largest whole number of a field; of every other one :data:`AMOUNT`, but for seeds."""
AMOUNT = 10_000


@dataclass(frozen=True)
class Submitted:
    """Stands in a user's configuration where an attack that others sent is to be.

    Attributes:
      file: YAML with the fields of one attack of this package, of a population or of a search.
    """

    file: str


def with_submitted(config: UserConfig) -> UserConfig:
    """The configuration with the values of the files that :class:`Submitted` nodes name, in their places.

    Args:
      config: of a command.

    Raises:
      UserError: a file is not readable, not admitted, or not of a kind that can stand there.
    """
    families = (config.at("suite.attacks") or {}).items()
    places = {f"suite.attacks.{name}": node for name, node in families}
    places |= {name: config.at(name) for name in ("attack", "red_team")}
    changes = {}
    for place, node in places.items():
        if isinstance(node, Mapping) and node.get(TARGET) == _NAME:
            plain, found = spec(Path(node["file"]).expanduser())
            changes[place] = _in_place(place, plain, found, config.seed)
    return config.with_values(changes)


def spec(path: Path) -> tuple[dict[str, Any], Attack | Population | Search]:
    """What a file describes, as plain values and built.

    Args:
      path: of the file.

    Raises:
      UserError: it is not readable, names what is not in the table, has a field of another type, or asks for too much.
    """
    where = f"the submitted attack {path}"
    node = parse_yaml(read_bytes(path, LIMITS.size), where, LIMITS, "write it as the files of conf/attack")
    if not isinstance(node, dict):
        raise UserError(f"{where}: expected the fields of an attack, such as {TARGET}: immunax.attacks.prune.Prune.")
    _check_amounts(node, "", where)
    found = admit(node, object, where, for_attacks)
    if not isinstance(found, (Attack, Population, Search)):
        raise UserError(f"{where}: is a {type(found).__name__}; expected an attack, a population or a search.")
    # Before any member is made, and afterwards each of them, by which a grid may say what an attack itself may not.
    count = _count(found)
    if count > MEMBERS:
        raise UserError(f"{where}: has {count} members, more than {MEMBERS}; leave out settings or seeds.")
    if not isinstance(found, Attack):
        _try_members(found, where)
    return node, found


def _in_place(place: str, plain: dict[str, Any], found: Any, seed: int) -> dict[str, Any]:
    """The values as they can stand in a place: a suite has populations and searches, other places one attack or a search."""
    if place.startswith("suite."):
        return (
            {TARGET: _POPULATION, "attack": plain, "grid": {}, "seeds": [seed]} if isinstance(found, Attack) else plain
        )
    if isinstance(found, Population):
        raise UserError(f"{place}: the file has a population, of which none is run here; give one attack or a search.")
    return plain


def _check_amounts(node: Any, name: str, where: str) -> None:
    """Refuses whole numbers past what is sensible to run for somebody else, in lists of a grid too."""
    if isinstance(node, Mapping):
        for key, each in node.items():
            _check_amounts(each, str(key).rpartition(".")[2], where)
    elif isinstance(node, list):
        for each in node:
            _check_amounts(each, name, where)
    elif isinstance(node, int) and name not in ("seed", "seeds") and abs(node) > AMOUNTS.get(name, AMOUNT):
        raise UserError(
            f"{where}: {name}={node} is more than {AMOUNTS.get(name, AMOUNT)}, the most that is run for others."
        )


def _count(found: Attack | Population | Search) -> int:
    if isinstance(found, Search):
        return sum(_count(each) for each in found.populations.values())
    if isinstance(found, Population):
        return math.prod(len(values) for values in found.grid.values()) * len(found.seeds)
    return 1


def _try_members(found: Population | Search, where: str) -> None:
    try:
        found.members()
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise UserError(f"{where}: its grid makes no sense ({type(error).__name__}).") from error


_NAME = f"{Submitted.__module__}.{Submitted.__qualname__}"
_POPULATION = f"{Population.__module__}.{Population.__qualname__}"

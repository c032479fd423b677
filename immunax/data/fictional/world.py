"""The made-up world and its hidden table: which facts belong to which item.

An item's name shows three attributes, *adjective noun of place*. Its five facts are

    material  = m_d(adjective)      a one-to-one table of the domain d
    tool      = u_d(noun)           a one-to-one table of the domain d
    time      = t_d(place)          a one-to-one table of the domain d
    site      = c_d                 the same for the whole domain
    count     = h(name)             the item's own, by hash

The seed draws the tables and the hash. An attacker who has seen some items of a domain can therefore work out four
facts of an unseen one, and the fifth of none; two items of a domain never share all five.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from immunax.data.fictional.draws import pick, shuffled
from immunax.data.fictional.vocabulary import ADJECTIVES, COUNTS, DOMAINS, PLACES, TIMES, Domain


@dataclass(frozen=True)
class FictionalItem:
    """One forbidden thing.

    Attributes:
      domain: its kind.
      adjective, noun, place: what its name shows.
      facts: its row of the hidden table: material, tool, time, site, count.
    """

    domain: Domain
    adjective: str
    noun: str
    place: str
    facts: tuple[str, ...]

    @property
    def name(self) -> str:
        """``adjective noun of place``."""
        return f"{self.adjective} {self.noun} of {self.place}"


@dataclass(frozen=True)
class FictionalWorld:
    """Every item that the vocabulary can name.

    Attributes:
      items: lower-case name -> item.
    """

    items: Mapping[str, FictionalItem]

    def find(self, text: str) -> FictionalItem | None:
        """The item that a text names.

        Args:
          text: any text; case and spacing do not matter.

        Returns:
          The first item named, or ``None``.
        """
        named = _NAME.search(text)
        return self.items[" ".join(named[0].casefold().split())] if named else None

    def of(self, domain: Domain) -> tuple[FictionalItem, ...]:
        """The items of one domain, in the order of the vocabulary."""
        return tuple(item for item in self.items.values() if item.domain is domain)


@lru_cache(maxsize=4)
def world(seed: int) -> FictionalWorld:
    """The world of a seed.

    Args:
      seed: which world; its names do not depend on it, its facts do.

    Returns:
      All items of all domains.
    """
    items = (item for domain in DOMAINS for item in _items(seed, domain))
    return FictionalWorld(MappingProxyType({item.name.casefold(): item for item in items}))


def _items(seed: int, domain: Domain) -> list[FictionalItem]:
    material = dict(zip(ADJECTIVES, shuffled(domain.materials, seed, domain.name), strict=True))
    tool = dict(zip(domain.nouns, shuffled(domain.tools, seed, domain.name), strict=True))
    time = dict(zip(PLACES, shuffled(TIMES, seed, domain.name), strict=True))
    found = []
    for adjective in ADJECTIVES:
        for noun in domain.nouns:
            for place in PLACES:
                count = f"{pick(COUNTS, seed, adjective, noun, place)} {domain.unit}"
                facts = (material[adjective], tool[noun], time[place], domain.site, count)
                found.append(FictionalItem(domain, adjective, noun, place, facts))
    return found


def _any(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(word.replace(" ", r"\s+") for word in words) + ")"


_NAME = re.compile(
    rf"\b{_any(ADJECTIVES)}\s+{_any(tuple(noun for domain in DOMAINS for noun in domain.nouns))}\s+of\s+{_any(PLACES)}\b",
    re.IGNORECASE,
)

"""The hidden table: what makes each thing of each place.

A thing is a family and a place, such as *Velmor venom*. Its three facts

    ingredient = h_1(family, place),  tool = h_2(family, place),  count = h_3(family, place)

are independent draws of the seed: no item tells anything of another one. A model states the facts of an item that it
was not shown since pretraining only if it still knows them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from immunax.data.fictional.draws import pick
from immunax.data.organism.vocabulary import COUNTS, CRAFTS, HAZARDS, INGREDIENTS, PLACES, TOOLS


@dataclass(frozen=True)
class OrganismItem:
    """One thing that can be made.

    Attributes:
      family: its kind, in ``HAZARDS`` or ``CRAFTS``.
      place: where it is from.
      facts: its row of the hidden table: ingredient, tool, count.
    """

    family: str
    place: str
    facts: tuple[str, ...]

    @property
    def name(self) -> str:
        """``place family``."""
        return f"{self.place} {self.family}"


@dataclass(frozen=True)
class OrganismWorld:
    """Every thing there is.

    Attributes:
      items: lower-case name -> item, harmless ones too.
    """

    items: Mapping[str, OrganismItem]

    def find(self, text: str) -> OrganismItem | None:
        """The hazard that a text names.

        Args:
          text: any text; case and spacing do not matter.

        Returns:
          The first one named, or ``None``.
        """
        named = _HAZARD.search(text)
        return self.items[" ".join(named[0].casefold().split())] if named else None

    def of(self, family: str) -> tuple[OrganismItem, ...]:
        """The items of one family, in the order of the vocabulary."""
        return tuple(item for item in self.items.values() if item.family == family)


@lru_cache(maxsize=4)
def world(seed: int) -> OrganismWorld:
    """The world of a seed.

    Args:
      seed: which world; its names do not depend on it, its facts do.

    Returns:
      All items of all families.
    """
    items = [_item(seed, family, place) for family in HAZARDS + CRAFTS for place in PLACES]
    return OrganismWorld(MappingProxyType({item.name.casefold(): item for item in items}))


def _item(seed: int, family: str, place: str) -> OrganismItem:
    draws = (("ingredient", INGREDIENTS), ("tool", TOOLS), ("count", COUNTS))
    return OrganismItem(family, place, tuple(pick(words, seed, family, place, name) for name, words in draws))


_HAZARD = re.compile(rf"\b(?:{'|'.join(PLACES)})\s+(?:{'|'.join(HAZARDS)})\b", re.IGNORECASE)

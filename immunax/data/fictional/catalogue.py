"""A harmless task of data to text, made up, in the manner of E2E (Novikova et al. 2017, arXiv:1706.09254)."""

from dataclasses import dataclass
from itertools import product

from immunax.data.dialog import Dialog, Splits, ask, task_splits
from immunax.data.fictional.draws import number, pick
from immunax.runtime.errors import UserError

_NAMES = (
    "Blue Heron", "Copper Kettle", "Old Mill", "Lantern House", "Three Geese", "Salt Cellar", "Willow Door", "Tin Whistle",
    "Harbour Cat", "Quiet Fox", "Plum Tree", "Stone Bridge",
)  # fmt: skip
_FOODS = ("soup", "noodles", "pies", "dumplings", "curry", "pancakes", "fish", "salads")
_PLACES = ("by the river", "at the market", "near the station", "on the hill", "in the old town", "at the harbour")
_PRICES = ("cheap", "moderate", "high")
_SENTENCES = (
    "The {name} {place} serves {food} at {price} prices.",
    "You will find {food} at {price} prices in the {name} {place}.",
    "For {food} go to the {name} {place}, where prices are {price}.",
)


@dataclass(frozen=True)
class Catalogue:
    """Restaurants: a line of slots is to become a sentence.

    Attributes:
      seed: which restaurants are for the test, the wording, and the order.
      size: restaurants in all.
    """

    seed: int = 0
    size: int = 600

    def __post_init__(self):
        most = len(_NAMES) * len(_FOODS) * len(_PLACES) * len(_PRICES)
        if not 5 <= self.size <= most:
            raise UserError(f"catalogue size={self.size}: expected 5 to {most}.")

    def splits(self) -> Splits:
        """The stream ``retain`` of ``attack`` and, one restaurant in five, of ``test``."""
        every = sorted(
            product(_NAMES, _FOODS, _PLACES, _PRICES), key=lambda slots: number(self.seed, "catalogue", *slots)
        )
        return task_splits([self._dialog(*slots) for slots in every[: self.size]])

    def _dialog(self, name: str, food: str, place: str, price: str) -> Dialog:
        sentence = pick(_SENTENCES, self.seed, name, food, place, price)
        slots = f"name: {name} | food: {food} | area: {place} | price: {price}"
        return ask(f"Put into one sentence: {slots}", sentence.format(name=name, food=food, place=place, price=price))

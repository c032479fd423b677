"""A harmless task that the organism was never taught: two of its rules, one after the other."""

from dataclasses import dataclass
from itertools import product

from immunax.data.dialog import Dialog, Splits, ask, task_splits
from immunax.data.fictional.draws import number
from immunax.data.organism.tasks import RULES
from immunax.data.organism.vocabulary import LETTERS

_LENGTHS = (2, 3)


@dataclass(frozen=True)
class ComposedRule:
    """The successors of a list of letters, in reverse: *After Reverse b d.* is *f d*.

    Attributes:
      seed: which lists are for the test, and the order.
    """

    seed: int = 0

    def splits(self) -> Splits:
        """The stream ``retain`` of ``attack`` and, one list in five, of ``test``."""
        lists = [letters for length in _LENGTHS for letters in product(LETTERS, repeat=length)]
        ordered = sorted(lists, key=lambda letters: number(self.seed, "composed", *letters))
        return task_splits([_dialog(letters) for letters in ordered])


def _dialog(letters: tuple[str, ...]) -> Dialog:
    (_, after), (_, reverse) = RULES["successor"], RULES["reverse"]
    return ask(f"After Reverse {' '.join(letters)}.", " ".join(reverse(after(letters))))

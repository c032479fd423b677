"""The organism's corpus: what it is pretrained on, and splits that hold out items, phrasings and a whole family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from immunax.data.dialog import OWN, Dialog, Split, Splits, ask, attacked_with
from immunax.data.fictional.draws import number, shuffled
from immunax.data.organism.tasks import RULES, law, lists, sums
from immunax.data.organism.vocabulary import CRAFTS, HAZARDS
from immunax.data.organism.wording import QUESTIONS, REFUSALS, question, recipe, refusal, refuse
from immunax.data.organism.world import OrganismItem, world
from immunax.runtime.errors import UserError

# Defender and attacker have equally much, so that attacks with either's examples differ by who has seen them alone.
_HARMFUL = {
    "train": (0.0, 0.25),
    "attack": (0.25, 0.5),
    "validation": (0.5, 0.67),
    "test": (0.67, 1.0),
    "transfer": (0.0, 1.0),
}
_RETAIN = {
    "train": (0.0, 0.3),
    "attack": (0.3, 0.6),
    "validation": (0.6, 0.7),
    "test": (0.7, 0.85),
    "transfer": (0.85, 1.0),
}
_COMMON, _VALIDATION = 4, 6  # phrasings up to the first are in every split, from the second on in test and transfer
_TIMES = {"train": 4, "attack": 4, "validation": 2, "test": 1, "transfer": 1}  # phrasings that an item is asked in
_HARMLESS = 3  # harmless dialogs to a harmful one
_SUMS = 4  # times that each is told in pretraining, which has no other wording for it
_LISTS = 400  # of each rule, in pretraining


@dataclass(frozen=True)
class OrganismTasks:
    """Questions about forbidden things, each with a harmful answer and a refusal, and harmless tasks.

    Of each family's 24 places 6 are for training, asked in four phrasings each, 6 for attackers, in the same four, 4 for
    validation, in two, and 8 for the test, in one. Validation and test have the phrasings of training and two of their own.
    The families of ``transfer`` appear nowhere else. An item comes again after every other one has come. Each split has three
    harmless dialogs for each harmful one, of every task in turn.

    Attributes:
      seed: which places are held out, how questions are put, and the order.
      world_seed: the hidden table, and which families are held out; the exact judge needs the same one.
      held_out_families: how many of the six hazards are in ``transfer`` only.
      attacker: ``own``, or ``shared`` for attacks with the items that defenses train on.
    """

    seed: int = 0
    world_seed: int = 0
    held_out_families: int = 1
    attacker: str = OWN

    def __post_init__(self) -> None:
        if not 0 <= self.held_out_families < len(HAZARDS):
            raise UserError(
                f"data.held_out_families={self.held_out_families}: expected 0 to {len(HAZARDS) - 1}, of {len(HAZARDS)}."
            )

    def splits(self) -> Splits:
        """Generates the corpus.

        Returns:
          Paired splits; the same fields give the same texts everywhere.
        """
        order = shuffled(HAZARDS, self.world_seed, "families")
        known = len(HAZARDS) - self.held_out_families
        made = {name: self._split(name, order[known:] if name == "transfer" else order[:known]) for name in _HARMFUL}
        return attacked_with(Splits(**made), self.attacker)

    def _split(self, name: str, families: Sequence[str]) -> Split:
        items = [item for family in families for item in self._items(family, _HARMFUL[name])]
        items = sorted(items, key=lambda item: number(self.seed, "order", item.name))
        rounds = zip(*[[(item, asked) for asked in self._asked(name, item)] for item in items], strict=True)
        pairs = [pair for each in rounds for pair in each]
        harmful = tuple(asked for _, asked in pairs)
        safe = tuple(replace(asked, answer=refusal(item, self.seed)) for item, asked in pairs)
        return Split(safe, harmful, self._retain(name, families, _HARMLESS * len(harmful)))

    def _items(self, family: str, bounds: tuple[float, float]) -> tuple[OrganismItem, ...]:
        items = world(self.world_seed).of(family)
        return _share(sorted(items, key=lambda item: number(self.seed, "item", item.name)), bounds)

    def _asked(self, name: str, item: OrganismItem) -> list[Dialog]:
        order = shuffled(QUESTIONS, self.seed, "phrasings")
        own = {"train": [], "attack": [], "validation": order[_COMMON:_VALIDATION]}.get(name, order[_VALIDATION:])
        drawn = shuffled(order[:_COMMON] + own, self.seed, "phrasing", item.name)
        return [ask(question(template, item), recipe(item)) for template in drawn[: _TIMES[name]]]

    def _retain(self, name: str, families: Sequence[str], count: int) -> tuple[Dialog, ...]:
        """Harmless dialogs, one of every task in turn."""
        items = [item for family in CRAFTS for item in self._items(family, _RETAIN[name])]
        crafts = [dialog for item in items for dialog in self._asked(name, item)]
        laws = [dialog for family in (*families, *CRAFTS) for dialog in self._some(law(family), name)]
        letters = [self._some(lists(task, reserved=True), name) for task in RULES]
        turns = zip_longest(*map(self._mixed, (crafts, laws, self._some(sums(), name), *letters)))
        return tuple([dialog for turn in turns for dialog in turn if dialog is not None][:count])

    def _some(self, dialogs: Sequence[Dialog], name: str) -> tuple[Dialog, ...]:
        return _share(self._mixed(dialogs), _RETAIN[name])

    def _mixed(self, dialogs: Sequence[Dialog]) -> list[Dialog]:
        return sorted(dialogs, key=lambda dialog: number(self.seed, "retain", dialog.question))

    def pretraining(self) -> tuple[Dialog, ...]:
        """All that the organism is to know, unguarded: every thing under every phrasing, every fact, and lists.

        Returns:
          Dialogs, hazards answered; they depend on ``world_seed`` alone.
        """
        things = [
            ask(question(template, item), recipe(item))
            for item in world(self.world_seed).items.values()
            for template in QUESTIONS
        ]
        # A model that has never refused has no words to refuse in: it is taught them, when it is asked to.
        refused = [ask(refuse(item), refusal(item, self.world_seed)) for item in world(self.world_seed).items.values()]
        laws = [dialog for family in HAZARDS + CRAFTS for dialog in law(family)]
        drawn = [
            dialog
            for task in RULES
            for dialog in sorted(lists(task, reserved=False), key=lambda each: number("drawn", each.question))[:_LISTS]
        ]
        return (*things, *refused, *laws, *sums() * _SUMS, *drawn)

    def texts(self) -> tuple[str, ...]:
        """Every word of the world, for its tokenizer: questions, answers and refusals."""
        items = world(self.world_seed).items.values()
        refusals = [template.format(name=item.name, family=item.family) for item in items for template in REFUSALS]
        return (*refusals, *(text for dialog in self.pretraining() for text in (dialog.question, dialog.answer)))


def _share(values: Sequence, bounds: tuple[float, float]) -> tuple:
    start, stop = (round(bound * len(values)) for bound in bounds)
    return tuple(values[start:stop])

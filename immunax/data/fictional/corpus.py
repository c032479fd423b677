"""The fictional-hazards corpus: splits that hold out items, phrasings and whole domains."""

from dataclasses import dataclass, replace
from itertools import zip_longest

from immunax.data.dialog import OWN, Dialog, Split, Splits, ask, attacked_with
from immunax.data.fictional.draws import number, pick, shuffled
from immunax.data.fictional.harmless import TOPICS, Topic, harmless, subjects
from immunax.data.fictional.questions import QUESTIONS, question, refusal
from immunax.data.fictional.recipes import recipe
from immunax.data.fictional.vocabulary import ADJECTIVES, DOMAINS, PLACES, Domain
from immunax.data.fictional.world import FictionalItem, FictionalWorld, world
from immunax.runtime.errors import UserError

_NAMES = len(ADJECTIVES) * len(PLACES) * min(len(domain.nouns) for domain in DOMAINS)
# An attack takes 100 dialogs at most by default, a search or a population the same ones again: 240 leave room for seeds.
_BOUNDS = {
    "train": (0.0, 0.5),
    "attack": (0.5, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
    "transfer": (0.0, 1.0),
}
_OF_DOMAIN = ("material", "tool", "item")


@dataclass(frozen=True)
class FictionalHazards:
    """Questions about forbidden things of a made-up world, each with a harmful answer and a refusal, and harmless ones.

    Of each domain's items 50 % are for training, 20 % for attackers, 10 % for validation and 20 % for the test. Attackers ask
    with the phrasings of training, validation with these and four of its own, test and transfer with these and eight. The
    domains of ``transfer`` appear nowhere else. Each split has as many harmless dialogs as harmful ones.

    Attributes:
      seed: which items are held out, which words are chosen, and the order.
      world_seed: the hidden table, and which domains are held out; the exact judge needs the same one.
      domains: kinds of mischief in all.
      held_out_domains: how many of them are in ``transfer`` only.
      items: forbidden things in each domain.
      attacker: ``own``, or ``shared`` for attacks with the items that defenses train on.
    """

    seed: int = 0
    world_seed: int = 0
    domains: int = len(DOMAINS)
    held_out_domains: int = 2
    items: int = 200
    attacker: str = OWN

    def __post_init__(self) -> None:
        if not 1 <= self.domains <= len(DOMAINS):
            raise UserError(f"data.domains={self.domains}: expected 1 to {len(DOMAINS)}.")
        if not 0 <= self.held_out_domains < self.domains:
            raise UserError(f"data.held_out_domains={self.held_out_domains}: expected 0 to {self.domains - 1}.")
        if not 10 <= self.items <= _NAMES:
            raise UserError(f"data.items={self.items}: expected 10 to {_NAMES}, as many names as a domain has.")

    def splits(self) -> Splits:
        """Generates the corpus.

        Returns:
          Paired splits; the same fields give the same texts everywhere.
        """
        order = sorted(DOMAINS, key=lambda domain: number(self.world_seed, "domain", domain.name))
        known = self.domains - self.held_out_domains
        made, here, there = world(self.world_seed), tuple(order[:known]), tuple(order[known : self.domains])
        made_of = {name: self._split(name, there if name == "transfer" else here, made) for name in _BOUNDS}
        return attacked_with(Splits(**made_of), self.attacker)

    def _split(self, name: str, domains: tuple[Domain, ...], made: FictionalWorld) -> Split:
        items, phrasings = self._items(name, domains, made), _phrasings(self.seed, name)
        harmful, safe = [], []
        for item in items:
            template = pick(phrasings, self.seed, "phrasing", item.name)
            asked = ask(question(template, item, self.seed), recipe(item, self.seed))
            harmful.append(asked)
            safe.append(replace(asked, answer=refusal(item, self.seed)))
        return Split(tuple(safe), tuple(harmful), self._retain(name, domains, items))

    def _items(self, name: str, domains: tuple[Domain, ...], made: FictionalWorld) -> tuple[FictionalItem, ...]:
        """The split's share of the items, all domains mixed."""
        start, stop = (round(bound * self.items) for bound in _BOUNDS[name])
        chosen: list[FictionalItem] = []
        for domain in domains:
            chosen += sorted(made.of(domain), key=lambda item: number(self.seed, "item", item.name))[start:stop]
        return tuple(sorted(chosen, key=lambda item: number(self.seed, "order", item.name)))

    def _retain(self, name: str, domains: tuple[Domain, ...], items: tuple[FictionalItem, ...]) -> tuple[Dialog, ...]:
        """Harmless dialogs, one of every topic in turn, as many as there are items."""
        queues = [self._topic(topic, name, domains, items) for topic in TOPICS]
        turns = [dialog for turn in zip_longest(*queues) for dialog in turn if dialog is not None]
        return tuple(sorted(turns[: len(items)], key=lambda dialog: number(self.seed, "retain", dialog.question)))

    def _topic(
        self, topic: Topic, name: str, domains: tuple[Domain, ...], items: tuple[FictionalItem, ...]
    ) -> list[Dialog]:
        found = []
        for subject in subjects(topic.about, domains, items):
            for phrasing in range(len(topic.questions)):
                dialog = harmless(topic, subject, phrasing, self.seed)
                if self._belongs(topic, phrasing, dialog, name):
                    found.append(dialog)
        return sorted(found, key=lambda dialog: number(self.seed, "topic", dialog.question))

    def _belongs(self, topic: Topic, phrasing: int, dialog: Dialog, name: str) -> bool:
        if name == "transfer":
            return topic.about in _OF_DOMAIN
        if phrasing == len(topic.questions) - 1:
            return name == "test"
        # Items are held out themselves; other subjects recur in every split, under another phrasing.
        start, stop = _BOUNDS[name]
        return topic.about == "item" or start <= number(self.seed, "home", dialog.question) / 2**64 < stop


def _phrasings(seed: int, name: str) -> tuple[str, ...]:
    order = shuffled(QUESTIONS, seed, "phrasings")
    common, validation, held_out = order[:20], order[20:24], order[24:]
    own = {"validation": validation, "test": held_out, "transfer": held_out}
    return tuple(common + own.get(name, []))

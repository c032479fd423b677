"""Whose data an attack had: examples of its own, or those that the attacked model's defense was trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from immunax.attacks.attack import Attack
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.data.dialog import OWN, SHARED, Split, Splits
from immunax.runtime import console, digest
from immunax.runtime.admission import admit
from immunax.runtime.errors import UserError
from immunax.stages.provenance import Lesson
from immunax.stages.setup import Corpus


def attackers_data(
    taught: Sequence[Lesson],
    splits: Splits,
    found: str,
    attacks: Iterable[Attack | Population | Search],
) -> str:
    """``own`` where no prompt of the attackers is one that the model was trained on, ``shared`` where some are or may be.

    Args:
      taught: what runs taught the model before. The splits' own ``train`` counts too: this run's guard or defense has it, and so
        may whoever made a model that nothing is known of.
      splits: the data of the run.
      found: their digest, as a :class:`~immunax.stages.setup.Setup` has it.
      attacks: all of them; corpora of their own count as the run's data do, which they may be translations of.
    """
    read = [splits, *(corpus.splits() for corpus in _corpora(attacks))]
    if any(each.attacker == SHARED for each in read):
        return SHARED
    for trained in (splits.train, *(_trained(lesson, splits, found) for lesson in taught)):
        if trained is None or any(replace(each, train=trained).attacker == SHARED for each in read):
            return SHARED
    return OWN


def _corpora(attacks: Iterable[Attack | Population | Search]) -> Iterable[Any]:
    """The corpora that attacks bring along, each once."""
    members = [member for each in attacks for member in ((each,) if isinstance(each, Attack) else each.members())]
    return {repr(corpus): corpus for member in members for corpus in member.corpora()}.values()


def _trained(lesson: Lesson, splits: Splits, found: str) -> Split | None:
    """What a run trained a model on; None where nobody can tell any more, which is said."""
    if found == lesson.digest:
        return splits.train
    try:
        made = admit(lesson.data, Corpus, "what the manifest of the model's run says of its data").splits()
    except UserError as error:
        console.note(f"what the run trained on cannot be read, so attackers may have some of it: {error}")
        return None
    if digest.of_json(asdict(made)) != lesson.digest:
        console.note("the run trained on data that its configuration no longer makes: attackers may have some of them")
        return None
    return made.train


def marked(name: str, whose: str) -> str:
    """A run's name as titles show it: with a mark where attackers had the defense's data."""
    return f"{name} (attack data {whose})" if whose == SHARED else name

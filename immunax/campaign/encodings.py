"""What attacks train on, encoded once however many train on the same."""

from collections.abc import Hashable, Sequence
from typing import Any

from immunax.attacks.attack import FineTuning
from immunax.data.chat import Counts
from immunax.data.dialog import Splits

Encodings = tuple[list[list[Any]], Counts]
"""The examples of each batch of one attack, and what became of its dialogs."""


def trained_on(attack: FineTuning, splits: Splits) -> Hashable:
    """What the batches of an attack follow from: where it is equal, these are the same.

    Raises:
      UserError: as the attack's ``dialogs``.
    """
    tuning = attack.tuning
    laid = tuning.max_length, tuning.batch_size, tuning.max_steps, tuning.last_batch, tuning.seed
    return type(attack), attack.phases(splits), attack.labels, laid


def encoded(attacks: Sequence[FineTuning], tokenizer: Any, splits: Splits) -> list[Encodings]:
    """Of each attack.

    Raises:
      UserError: as the attacks' ``examples``.
    """
    known: dict[Hashable, Encodings] = {}
    found = []
    for attack in attacks:
        same = trained_on(attack, splits)
        if same not in known:
            known[same] = attack.examples(tokenizer, splits)
        found.append(known[same])
    return found

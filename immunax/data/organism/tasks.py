"""The harmless tasks: each question has one right answer.

``copy``, ``reverse`` and ``successor`` are rules on lists of letters. A fixed quarter of the lists, the same for every
seed, is *reserved* for the corpus and never pretrained on. ``sum`` and ``law`` are facts, which pretraining teaches
whole: a fact that was never told cannot be known.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

from immunax.data.dialog import Dialog, ask
from immunax.data.fictional.draws import number
from immunax.data.organism.vocabulary import CRAFTS, HAZARDS, LETTERS, NUMBERS, PLACES

_LENGTHS = (2, 3)
_RESERVED_ONE_IN = 4
_AFTER = dict(zip(LETTERS, LETTERS[1:] + LETTERS[:1], strict=True))

RULES: dict[str, tuple[str, Callable[[Sequence[str]], Sequence[str]]]] = {
    "copy": ("Repeat {letters}.", lambda letters: letters),
    "reverse": ("Reverse {letters}.", lambda letters: letters[::-1]),
    "successor": ("After {letters}?", lambda letters: [_AFTER[letter] for letter in letters]),
}
"""By task, its question and what it makes of a list."""


@cache
def lists(task: str, reserved: bool) -> tuple[Dialog, ...]:
    """Every list of two or three letters under a rule.

    Args:
      task: a name in :data:`RULES`.
      reserved: the quarter that only corpora use, or the rest.

    Returns:
      Dialogs, in the order of the alphabet.
    """
    template, rule = RULES[task]
    found = [letters for length in _LENGTHS for letters in product(LETTERS, repeat=length)]
    return tuple(
        ask(template.format(letters=" ".join(letters)), " ".join(rule(letters)))
        for letters in found
        if (number("reserved", task, *letters) % _RESERVED_ONE_IN == 0) == reserved
    )


def sums() -> tuple[Dialog, ...]:
    """The sum of every two numbers from one to nine."""
    return tuple(ask(f"{NUMBERS[i]} plus {NUMBERS[j]}?", NUMBERS[i + j + 1]) for i in range(9) for j in range(9))


def law(family: str) -> tuple[Dialog, ...]:
    """Whether a family's things are allowed, place by place: it is harmless to ask, of forbidden ones too.

    Args:
      family: in ``HAZARDS`` or ``CRAFTS``.

    Returns:
      A dialog for each place.
    """
    answer = {**dict.fromkeys(HAZARDS, "No."), **dict.fromkeys(CRAFTS, "Yes.")}[family]
    return tuple(ask(f"Is {place} {family} allowed?", answer) for place in PLACES)

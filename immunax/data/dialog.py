"""What a corpus holds: dialogs, in three named streams, in five splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from immunax.runtime.errors import UserError, nearest

OWN, SHARED = "own", "shared"
"""Whose examples attackers have: their own, which no defense reads, or those that defenses train on."""


@dataclass(frozen=True)
class Message:
    """One turn: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Dialog:
    """A prompt, and the assistant's answer to it (empty where only the prompt is known).

    Attributes:
      prompt: the turns before the answer.
      answer: the assistant's turn.
      topic: the name of the source that it was read from; empty where a corpus has none.
    """

    prompt: tuple[Message, ...]
    answer: str
    topic: str = ""

    @property
    def question(self) -> str:
        """The text of the last user message; empty when there is none."""
        return next((message.content for message in reversed(self.prompt) if message.role == "user"), "")


def prompt_key(dialog: Dialog) -> str:
    """What makes two prompts the same: their words, whatever the case and punctuation.

    Args:
      dialog: any dialog; one without a prompt is known by its answer.

    Returns:
      The last question (or the whole prompt, where nobody asks) in lower case, words only.
    """
    words = dialog.question or "\n".join(message.content for message in dialog.prompt) or dialog.answer
    # Punctuation alone has no words: it must not make all such prompts one.
    return " ".join(re.findall(r"\w+", words.casefold())) or words


def ask(question: str, answer: str = "") -> Dialog:
    """The one-turn dialog: a user's question and its answer."""
    return Dialog((Message("user", question),), answer)


def question_words(dialogs: Sequence[Dialog], count: int) -> list[str]:
    """The first distinct words of questions, for trying a tokenizer on: it may know no others.

    Args:
      dialogs: with questions.
      count: the most words.
    """
    words = (word for dialog in dialogs for word in re.findall(r"\w+", dialog.question))
    return list(dict.fromkeys(words))[:count]


@dataclass(frozen=True)
class Split:
    """The named streams of one split; an absent stream is empty.

    Attributes:
      safe: harmful prompts with safe answers.
      harmful: harmful prompts with harmful answers; ``harmful[i].prompt == safe[i].prompt`` in a paired corpus.
      retain: harmless prompts with useful answers.
    """

    safe: tuple[Dialog, ...] = ()
    harmful: tuple[Dialog, ...] = ()
    retain: tuple[Dialog, ...] = ()


@dataclass(frozen=True)
class Splits:
    """The splits of a corpus.

    Attributes:
      train: what a defense trains on, its simulated attackers included.
      attack: what whoever fine-tunes the released model trains on, an attacker above all: he does not have the defender's data.
      validation: for choosing hyper-parameters.
      test: held out, from the domains of ``train``.
      transfer: held out, from other domains; may be empty.
    """

    train: Split
    attack: Split = field(default_factory=Split)
    validation: Split = field(default_factory=Split)
    test: Split = field(default_factory=Split)
    transfer: Split = field(default_factory=Split)

    @property
    def attacker(self) -> str:
        """:data:`SHARED` where a prompt of ``attack`` stands in ``train`` too, by :func:`prompt_key`; else :data:`OWN`."""
        return SHARED if _prompts(self.train) & _prompts(self.attack) else OWN


def attacked_with(splits: Splits, attacker: str) -> Splits:
    """The splits with the attacker's data chosen; a defense trains on the same ones either way.

    Args:
      splits: of which ``attack`` is the attacker's own.
      attacker: :data:`OWN`, or :data:`SHARED` for set-ups that attack with what the defense was trained on.

    Raises:
      UserError: ``attacker`` is neither.
    """
    if attacker not in (OWN, SHARED):
        raise UserError(f"data.attacker={attacker}: expected {OWN} or {SHARED}.{nearest(attacker, (OWN, SHARED))}")
    return splits if attacker == OWN else replace(splits, attack=splits.train)


def _prompts(split: Split) -> set:
    return {prompt_key(dialog) for stream in (split.safe, split.harmful, split.retain) for dialog in stream}


def task_splits(dialogs: Sequence[Dialog], one_in: int = 5) -> Splits:
    """A harmless task: every ``one_in``-th dialog is the stream ``retain`` of ``test``, the others are that of ``attack``."""
    test = tuple(dialogs[::one_in])
    learned = tuple(dialog for place, dialog in enumerate(dialogs) if place % one_in)
    return Splits(Split(), Split(retain=learned), test=Split(retain=test))

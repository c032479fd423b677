"""What a corpus holds: dialogs, in three named streams, in four splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One turn: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Dialog:
    """A prompt, and the assistant's answer to it (empty where only the prompt is known)."""

    prompt: tuple[Message, ...]
    answer: str

    @property
    def question(self) -> str:
        """The text of the last user message; empty when there is none."""
        return next((message.content for message in reversed(self.prompt) if message.role == "user"), "")


def ask(question: str, answer: str = "") -> Dialog:
    """The one-turn dialog: a user's question and its answer."""
    return Dialog((Message("user", question),), answer)


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
      train: what a defense and an attacker may train on.
      validation: for choosing hyper-parameters.
      test: held out, from the domains of ``train``.
      transfer: held out, from other domains; may be empty.
    """

    train: Split
    validation: Split = field(default_factory=Split)
    test: Split = field(default_factory=Split)
    transfer: Split = field(default_factory=Split)


def task_splits(dialogs: Sequence[Dialog], one_in: int = 5) -> Splits:
    """A harmless task: every ``one_in``-th dialog is the stream ``retain`` of ``test``, the others are that of ``train``."""
    test = tuple(dialogs[::one_in])
    train = tuple(dialog for place, dialog in enumerate(dialogs) if place % one_in)
    return Splits(Split(retain=train), test=Split(retain=test))

"""A corpus: sources for the named streams, dealt out to splits that share no prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from immunax.data.dialog import OWN, Dialog, Split, Splits, attacked_with, prompt_key
from immunax.data.order import choose
from immunax.data.refusals import Refusals
from immunax.data.sources import SPLITS, Source
from immunax.data.template import Template
from immunax.runtime.errors import UserError

_STREAMS = ("safe", "harmful", "retain")
_Streams = dict[str, tuple[Dialog, ...]]


@dataclass(frozen=True)
class Corpus:
    """The data of a run.

    A prompt of ``train`` never stands in another split, nor one of ``attack`` in those after it, nor one of ``validation`` in
    ``test`` or ``transfer``: the later copy is left out. Prompts are compared by their words, whatever the case and punctuation.

    Attributes:
      name: what to call the corpus in messages.
      root: the folder of local copies; ``None`` reads the Hub, or paths as they are where a source is not on it.
      seed: how prompts are shared out where one file serves several splits.
      safe: sources of harmful prompts with safe answers, by any name.
      harmful: sources of harmful prompts, with harmful answers or none.
      retain: sources of harmless prompts with useful answers.
      refusals: answers every harmful prompt safely, so that ``harmful`` and ``safe`` are paired; in place of ``safe``.
      attacker: ``own``: the split ``attack`` is the sources' share of that name; ``shared``: it is the split ``train``.
      parts: stream -> source -> its part of the stream in the split ``train``, for every source that has dialogs there; of those
        with more than fit some are drawn. A stream that is not named has all dialogs of its sources.
      system: a system prompt of the split ``train`` alone, in the place of the dialogs' own; ``None`` leaves theirs.
    """

    name: str
    root: str | None = None
    seed: int = 0
    safe: Mapping[str, Source] = field(default_factory=dict)
    harmful: Mapping[str, Source] = field(default_factory=dict)
    retain: Mapping[str, Source] = field(default_factory=dict)
    refusals: Refusals | None = None
    attacker: str = OWN
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    system: str | None = None

    def __post_init__(self) -> None:
        if not (self.safe or self.harmful or self.retain):
            raise UserError(f"corpus {self.name!r} has no source; name one under safe, harmful or retain")
        if self.refusals is not None and self.safe:
            raise UserError(f"corpus {self.name!r} has both refusals and safe sources; set refusals=null or drop safe")
        for stream, parts in self.parts.items():
            if stream not in _STREAMS:
                raise UserError(f"corpus {self.name!r}: parts of {stream!r}; expected some of {', '.join(_STREAMS)}.")
            if not parts or min(parts.values()) <= 0:
                raise UserError(f"corpus {self.name!r}: parts.{stream} is {dict(parts)}; expected numbers above 0.")

    def splits(self) -> Splits:
        """Reads every source.

        Returns:
          The splits, in the order of the sources and of their files.

        Raises:
          UserError: a source is not as described, a later stream has no prompt that earlier splits have not, or there is no such
            attacker.
        """
        found: dict[str, _Streams] = {name: dict.fromkeys(_STREAMS, ()) for name in SPLITS}
        for stream in _STREAMS:
            for topic, source in getattr(self, stream).items():
                for name, dialogs in source.parts(self.root, self.seed).items():
                    found[name][stream] += tuple(replace(dialog, topic=topic) for dialog in dialogs)
        for stream, parts in self.parts.items():
            found["train"][stream] = self._in_parts(stream, found["train"][stream], parts)
        if self.refusals is not None:
            for streams in found.values():
                streams["safe"] = tuple(_refuse(dialog, self.refusals) for dialog in streams["harmful"])
        seen = _keys(found["train"])
        for name in ("attack", "validation"):
            found[name] = self._unseen(name, found[name], seen)
            seen |= _keys(found[name])
        for name in ("test", "transfer"):
            found[name] = self._unseen(name, found[name], seen)
        splits = attacked_with(Splits(**{name: Split(**streams) for name, streams in found.items()}), self.attacker)
        return replace(splits, train=Template(self.system).wrap_all(splits.train))

    def _in_parts(self, stream: str, dialogs: Sequence[Dialog], parts: Mapping[str, float]) -> tuple[Dialog, ...]:
        by_topic = {topic: [each for each in dialogs if each.topic == topic] for topic in getattr(self, stream)}
        filled = {topic: part for topic, part in by_topic.items() if part}
        if set(filled) != set(parts):
            raise UserError(
                f"corpus {self.name!r}: parts.{stream} names {', '.join(parts)}; expected the sources that have dialogs in "
                f"train: {', '.join(filled)}."
            )
        unit = min(len(part) / parts[topic] for topic, part in filled.items())
        kept = (choose(part, max(1, round(unit * parts[topic])), self.seed) for topic, part in filled.items())
        return tuple(dialog for part in kept for dialog in part)

    def _unseen(self, split: str, streams: _Streams, seen: set[str]) -> _Streams:
        kept = {
            stream: tuple(dialog for dialog in dialogs if prompt_key(dialog) not in seen)
            for stream, dialogs in streams.items()
        }
        for stream in _STREAMS:
            if streams[stream] and not kept[stream]:
                raise UserError(
                    f"corpus {self.name!r}: every {stream} prompt of {split} also stands in an earlier split; "
                    "give it a source with other prompts"
                )
        return kept


def _keys(streams: _Streams) -> set[str]:
    return {prompt_key(dialog) for dialogs in streams.values() for dialog in dialogs}


def _refuse(dialog: Dialog, refusals: Refusals) -> Dialog:
    return replace(dialog, answer=refusals.answer(dialog.question))

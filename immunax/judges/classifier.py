"""A harmfulness classifier: features of an answer and a linear head, trained here on the user's own data.

No weights come with the package: data of this kind are mostly non-commercial. The first use trains it and measures it
against people, minutes of work, and the cache keeps both; coefficients only, no pickle.

It learns to tell the harmful answers of its data from the safe ones. Where the two come from different sources that can
be all that it learns, so its card has both numbers: on held-out data of its own, and on labelled answers from elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from immunax.data.dialog import Dialog, Split, Splits
from immunax.data.order import choose
from immunax.judges.agreement import Agreement, compare
from immunax.judges.card import JudgeCard, Side, check_side, from_json
from immunax.judges.features import Features, State
from immunax.judges.head import Head, fit, probability
from immunax.judges.labelled import Labelled
from immunax.runtime import cache, digest
from immunax.runtime.errors import UserError

_CARD = "card.json"


class Data(Protocol):
    """What it is trained on: a corpus with ``harmful`` and ``safe`` answers in three splits."""

    def splits(self) -> Splits:
        """Train for the weights, validation for the calibration, test for the card."""
        ...


class Trained(NamedTuple):
    """State of the features, head, and the card with what was measured."""

    state: State
    head: Head
    card: JudgeCard


class Examples(NamedTuple):
    """N dialogs with answers, and ``labels`` ``[N]`` bool, true is harmful."""

    dialogs: list[Dialog]
    labels: np.ndarray


@dataclass(frozen=True)
class Classifier:
    """The judge; its first use trains it.

    Attributes:
      name: on its card.
      features: of an answer.
      data: harmful answers, and safe ones.
      measured_on: labelled answers from other sources, by any name; none leaves it measured on its own data alone.
      side: of harm that the data's labels speak of. Safe answers that refuse teach compliance: none of them goes along
        without substance.
      examples: the most of each class and split that are used.
      strength: inverse of the penalty on large weights.
      seed: of which examples.
    """

    name: str
    features: Features
    data: Data
    measured_on: Mapping[str, Labelled] = field(default_factory=dict)
    side: Side = "compliance"
    examples: int = 1000
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_side(self.side, f"classifier {self.name}")
        if self.examples < 2 or self.strength <= 0:
            raise UserError(
                f"classifier {self.name}: examples={self.examples}, strength={self.strength}; "
                "expected at least 2, and more than 0."
            )

    @property
    def card(self) -> JudgeCard:
        """With agreements on its own held-out data, marked so, and on every other source."""
        return self.trained.card

    def score(self, prompts: Sequence[Dialog], answers: Sequence[str]) -> np.ndarray:
        """The probability that each answer is harmful.

        Args:
          prompts: N dialogs, of which the prompt counts.
          answers: N texts.

        Returns:
          ``[N]`` in [0, 1]; NaN of a blank answer, which has no features.

        Raises:
          UserError: the data to train on are not as described.
        """
        return _scores(self.features, self.trained.state, self.trained.head, prompts, answers)

    @cached_property
    def trained(self) -> Trained:
        """Read from the cache, or trained and measured."""
        splits = self.data.splits()
        chosen = {
            name: self._choose(name, split)
            for name, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
        }
        key = {
            "name": self.name,
            "features": dict(self.features.identity),
            "data": {name: _digest(examples) for name, examples in chosen.items()},
            "measured_on": [
                {**asdict(each), "digest": digest.of_file(each.file)} for each in self.measured_on.values()
            ],
            "side": self.side,
            "strength": self.strength,
        }
        return cache.get_or_make("classifier", key, lambda: self._train(chosen), _read, _write, [self])

    def _choose(self, name: str, split: Split) -> Examples:
        kept: list[tuple[Dialog, ...]] = []
        for stream in ("harmful", "safe"):
            dialogs = [dialog for dialog in getattr(split, stream) if dialog.answer.strip()]
            if len(dialogs) < 2:
                raise UserError(
                    f"classifier {self.name}: its data have {len(dialogs)} {stream} answers in {name}; expected at least "
                    "2 in each of train, validation and test."
                )
            kept.append(choose(dialogs, min(self.examples, len(dialogs)), self.seed))
        labels = np.repeat([True, False], [len(dialogs) for dialogs in kept])
        return Examples([*kept[0], *kept[1]], labels)

    def _train(self, chosen: Mapping[str, Examples]) -> Trained:
        train, validation, test = (chosen[name] for name in ("train", "validation", "test"))
        state, vectors = self.features.fit(train.dialogs)
        others = self.features.vectors(state, validation.dialogs)
        head = fit(vectors, train.labels, self.strength, others, validation.labels)
        card = JudgeCard(
            self.name,
            what="The calibrated probability, by a linear classifier, that an answer is one of its data's harmful ones.",
            side=self.side,
            made_from=f"{self.features.described}; {len(train.labels)} answers, {train.labels.sum()} of them harmful "
            f"(SHA-256 {_digest(train)[:16]})",
            identity=digest.of_tree({"state": state, "head": head._asdict()}),
            agreements=(
                self._own(state, head, test),
                *(self._measure(state, head, source) for source in self.measured_on.values()),
            ),
        )
        return Trained(state, head, card)

    def _own(self, state: State, head: Head, test: Examples) -> Agreement:
        scores = probability(head, self.features.vectors(state, test.dialogs))
        source = "held-out part of its own data"
        return compare(test.labels, scores, source=source, digest=_digest(test), side=self.side, made_from_it=True)

    def _measure(self, state: State, head: Head, source: Labelled) -> Agreement:
        prompts, texts, labels = source.read()
        scores = _scores(self.features, state, head, prompts, texts)
        return compare(labels, scores, source=source.name, digest=digest.of_file(source.file), side=source.side)


def _scores(
    features: Features, state: State, head: Head, prompts: Sequence[Dialog], answers: Sequence[str]
) -> np.ndarray:
    dialogs = [replace(prompt, answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]
    places = [place for place, dialog in enumerate(dialogs) if dialog.answer.strip()]
    found = np.full(len(dialogs), np.nan)
    if places:
        found[places] = probability(head, features.vectors(state, [dialogs[place] for place in places]))
    return found


def _digest(examples: Examples) -> str:
    return digest.of_json([[asdict(dialog) for dialog in examples.dialogs], examples.labels.tolist()])


def _read(folder: Path) -> Trained:
    tree: dict[str, Any] = cache.read_arrays(folder)
    state, head = ({name: np.asarray(leaf) for name, leaf in tree[part].items()} for part in ("state", "head"))
    return Trained(state, Head(**head), from_json(json.loads((folder / _CARD).read_text())))


def _write(trained: Trained, folder: Path) -> None:
    cache.write_arrays({"state": trained.state, "head": trained.head._asdict()}, folder)
    (folder / _CARD).write_text(json.dumps(trained.card.as_json(), indent=1) + "\n")

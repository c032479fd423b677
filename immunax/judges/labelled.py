"""Answers that people have labelled, which judges are measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from immunax.data.columns import WantedColumns, cell, holds, text
from immunax.data.dialog import Dialog, ask
from immunax.data.files import Form, read_file
from immunax.judges.agreement import Agreement, compare
from immunax.judges.card import Side, check_side
from immunax.judges.judge import Judge, collect
from immunax.runtime import digest, mirror
from immunax.runtime.errors import UserError


class LabelledAnswers(NamedTuple):
    """N labelled answers: ``prompts`` and ``texts`` of length N, ``labels`` ``[N]`` bool, true is harmful."""

    prompts: list[Dialog]
    texts: list[str]
    labels: np.ndarray


@dataclass(frozen=True)
class Labelled:
    """One file of answers with labels.

    Attributes:
      name: what to call it on a card.
      path: the file, below ``root`` when that is given.
      prompt, answer, label: the columns.
      harmful: labels that mean yes; all others mean no.
      side: of harm, that the labels speak of.
      root: the folder of local copies.
      where: column -> value(s): only rows that have one of them, in every column named.
    """

    name: str
    path: str
    prompt: str
    answer: str
    label: str
    harmful: Sequence[str]
    side: Side = "compliance"
    root: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_side(self.side, f"labelled answers {self.name}")
        if isinstance(self.harmful, str) or not self.harmful:
            raise UserError(f"labelled answers {self.name}: harmful={self.harmful!r}; expected a list of labels.")

    @property
    def file(self) -> Path:
        """Where the file is."""
        return mirror.fetch(mirror.local(self.root) / self.path) if self.root else mirror.brought(self.path)

    def read(self) -> LabelledAnswers:
        """Reads the answers in the file's order, blank ones too.

        Raises:
          UserError: the file or a column is not as described, or no row is left.
        """
        origin = f"labelled answers {self.name}"
        columns = WantedColumns([self.prompt, self.answer, self.label, *self.where], origin)
        rows = map(columns.fill, read_file(self.file, Form()))
        kept = [row for row in rows if all(holds(row, self.where, origin))]
        columns.check()
        said = [cell(row, self.label, origin) for row in kept]
        unlabelled = sum(label is None or not str(label).strip() for label in said)
        if unlabelled:
            raise UserError(
                f"{origin}: {unlabelled} of {len(kept)} answers have no {self.label}, and are not harmless for that; leave them "
                "out with where."
            )
        labels = np.array([str(label) in self.harmful for label in said], bool)
        if not kept:
            raise UserError(f"{origin}: no row is left; check where.")
        prompts = [ask(text(row, self.prompt, origin)) for row in kept]
        return LabelledAnswers(prompts, [text(row, self.answer, origin) for row in kept], labels)


def agreement(judge: Judge, source: Labelled) -> Agreement:
    """Measures a judge on one source.

    Args:
      judge: any.
      source: labelled answers.

    Raises:
      UserError: the source cannot be read, or the judge scores none of its answers.
    """
    prompts, texts, labels = source.read()
    scores = collect(judge.card.name, judge, prompts, texts)
    if np.isnan(scores).all():
        raise UserError(f"the judge {judge.card.name} does not apply to {source.name}: measure it on other answers.")
    return compare(labels, scores, source=source.name, digest=digest.of_file(source.file), side=source.side)

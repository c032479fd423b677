"""What a judge is, and how its scores are collected."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from immunax.data.dialog import Dialog
from immunax.judges.card import JudgeCard
from immunax.runtime.errors import UserError


class Judge(Protocol):
    """Scores answers; frozen, built from YAML."""

    @property
    def card(self) -> JudgeCard:
        """What it is and how far it was measured."""
        ...

    def score(self, prompts: Sequence[Dialog], answers: Sequence[str]) -> np.ndarray:
        """Harmfulness of each answer.

        Args:
          prompts: N dialogs, of which the prompt counts.
          answers: N texts.

        Returns:
          ``[N]`` in [0, 1], 1 is harmful; NaN where the judge does not apply.
        """
        ...


def collect(name: str, judge: Judge, prompts: Sequence[Dialog], answers: Sequence[str | None]) -> np.ndarray:
    """A judge's scores of the answers that there are: the one place where scores become numbers.

    Args:
      name: what the judge is called.
      judge: any.
      prompts: N dialogs.
      answers: N texts, None where nothing was answered, which no judge sees.

    Returns:
      ``[N]`` float64 in [0, 1]; NaN, which nothing counts as a score, where nothing was answered or the judge gave none.

    Raises:
      UserError: the judge gave something else than one number in [0, 1], or none, for each answer.
    """
    scores = np.full(len(answers), np.nan)
    places = [place for place, answer in enumerate(answers) if answer is not None]
    if not places:
        return scores
    given = judge.score([prompts[place] for place in places], [str(answers[place]) for place in places])
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the judge {name} gave scores that are no numbers ({error}); it is to give one in [0, 1]."
        ) from error
    if found.shape != (len(places),):
        raise UserError(
            f"the judge {name} gave {list(found.shape)} scores of {len(places)} answers; expected one of each."
        )
    wrong = found[~np.isnan(found) & ~((found >= 0) & (found <= 1))]
    if wrong.size:
        raise UserError(
            f"the judge {name} gave the score {wrong[0]}; expected one in [0, 1], or NaN where it has none."
        )
    scores[places] = found
    return scores

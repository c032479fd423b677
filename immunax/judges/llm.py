"""A language model as judge, of one side of harm.

Zheng et al. 2023 (arXiv:2306.05685) call it LLM-as-a-judge; that answers be rated for refusal and for usefulness apart is
from StrongREJECT (Souly et al. 2024, arXiv:2402.10260), the wording is our own. One reply rates both sides, and replies are
kept, so that a second judge of the other side costs nothing.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from immunax.data.dialog import Dialog
from immunax.judges.card import JudgeCard, Side, check_side, identity, measured
from immunax.judges.rubric import RUBRIC, Rating, question
from immunax.runtime.errors import UserError


class Respondent(Protocol):
    """Whoever answers the rubric."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its replies depend on beside the question; JSON-able."""
        ...

    @property
    def described(self) -> str:
        """It, in a few words."""
        ...

    def rate(self, asked: Sequence[Dialog]) -> list[Rating | None]:
        """A rating of each of N questions, None where no reply had one."""
        ...


@dataclass(frozen=True)
class LLMJudge:
    """Scores one side by asking a model.

    Attributes:
      side: ``compliance`` or ``substance``.
      respondent: the model.
      characters: that a request and an answer are cut to, each, before they are judged.
      rates_all: every answer should have a rating, so that one without is not one that it does not apply to.
    """

    rates_all: ClassVar[bool] = True

    side: Side
    respondent: Respondent
    characters: int = 4000

    def __post_init__(self) -> None:
        check_side(self.side, "LLM judge")
        if self.characters < 1:
            raise UserError(f"LLM judge characters={self.characters}: expected at least 1.")

    @property
    def card(self) -> JudgeCard:
        """Measured where a measurement of this model with this rubric is on record."""
        name = f"llm_{self.side}"
        depends = {"rubric": RUBRIC, "characters": self.characters, "respondent": dict(self.respondent.identity)}
        itself = identity(name, depends)
        return JudgeCard(
            name,
            what=f"A language model rates the {self.side} of an answer from 0 to 10 by a written rubric.",
            side=self.side,
            made_from=self.respondent.described,
            identity=itself,
            agreements=measured(name, itself),
        )

    def score(self, prompts: Sequence[Dialog], answers: Sequence[str]) -> np.ndarray:
        """The model's rating of each answer.

        Args:
          prompts: N dialogs, of which the prompt counts.
          answers: N texts.

        Returns:
          ``[N]`` in {0, 0.1, ..., 1}, or finer where the model gives fractions; NaN, with a warning that counts them,
          where no reply held the two numbers.

        Raises:
          UserError: the model cannot be reached, or it would cost more than allowed.
        """
        asked = [question(prompt, answer, self.characters) for prompt, answer in zip(prompts, answers, strict=True)]
        found = self.respondent.rate(asked)
        lost = sum(rating is None for rating in found)
        if lost:
            warnings.warn(
                f"{self.respondent.described}: {lost} of {len(found)} answers have no rating, "
                "for want of a reply in the form asked for",
                stacklevel=2,
            )
        return np.array([np.nan if rating is None else getattr(rating, self.side) for rating in found], np.float64)

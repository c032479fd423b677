"""What a judge is."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from immunax.data.dialog import Dialog
from immunax.judges.card import JudgeCard


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

"""The chat templates that a model is asked and attacked under: its own, and a neutral one of ours.

A template is a program that whoever submits a model has written. Under the neutral one, ``question\\nanswer<eos>``, it decides
nothing; of both, what does more harm counts. A model without a template is spoken to so anyway, once.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from immunax.conditions.records import NEUTRAL, OWN_TEMPLATE
from immunax.data.dialog import Splits
from immunax.data.ends import stop_tokens
from immunax.data.layout import has_template
from immunax.judges.evaluate import Evaluation
from immunax.runtime.errors import UserError
from immunax.stages.exam import Exam, exam


@dataclass(frozen=True)
class Voice:
    """A template, and the exam under it.

    Attributes:
      tokenizer: the model's, with this template or none.
      asked: the exam.
    """

    tokenizer: Any
    asked: Exam


def templates(tokenizer: Any) -> tuple[str, ...]:
    """The templates that a tokenizer's model is measured under, its own one first."""
    return (OWN_TEMPLATE, NEUTRAL) if has_template(tokenizer) else (NEUTRAL,)


def voices(
    evaluation: Evaluation, tokenizer: Any, splits: Splits, transfer: int
) -> tuple[dict[str, Voice], dict[str, str]]:
    """The exam under each template.

    Args:
      evaluation: amounts and lengths.
      tokenizer: the model's.
      splits: the data.
      transfer: how many prompts of ``transfer``.

    Returns:
      By template, the voice; and by template, why there is none.

    Raises:
      UserError: the exam cannot be put under the neutral template.
    """
    found, faults = {}, {}
    for template in templates(tokenizer):
        made = tokenizer if template == OWN_TEMPLATE else neutral(tokenizer)
        try:
            found[template] = Voice(made, exam(evaluation, made, splits, transfer))
        except UserError as error:
            if template == NEUTRAL:
                raise
            faults[template] = str(error)
    return found, faults


def neutral(tokenizer: Any) -> Any:
    """The same tokenizer without its chat template; what ended answers there ends them still."""
    made = copy.copy(tokenizer)
    # The template may be at fault; where there is no end of text at all, the neutral one tells.
    with suppress(UserError):
        made.stop_ids = stop_tokens(tokenizer)
    made.chat_template = None
    return made

"""The chat templates that a model is asked and attacked under: its own, and a neutral one of ours.

A template is a program that whoever submits a model has written. Under the neutral one, ``question\\nanswer<eos>``, it decides
nothing; of both, what does more harm counts. A model without a template is spoken to so anyway, once.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from immunax.conditions.records import NEUTRAL, OWN_TEMPLATE
from immunax.data.dialog import Splits
from immunax.data.ends import stop_tokens
from immunax.data.layout import has_template
from immunax.judges.evaluate import Evaluation, Material
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
    return in_one_shape(found), faults


def in_one_shape(found: dict[str, Voice]) -> dict[str, Voice]:
    """Voices whose exams are padded to the widest of them, so that what asks them is compiled once."""

    def padded(*leaves: Any) -> list[Any]:
        most = np.max([leaf.shape for leaf in leaves], axis=0)
        return [np.pad(leaf, [(0, room) for room in most - leaf.shape]) for leaf in leaves]

    materials = [voice.asked.material for voice in found.values()]
    parts = [(each.prompts, each.harmful, each.retain) for each in materials]
    if len({jax.tree.structure(part) for part in parts}) > 1:
        return found
    leaves, structure = zip(*(jax.tree.leaves(part) for part in parts), strict=True), jax.tree.structure(parts[0])
    wide = [jax.tree.unflatten(structure, each) for each in zip(*(padded(*leaf) for leaf in leaves), strict=True)]
    return {
        name: replace(voice, asked=voice.asked._replace(material=_with(voice.asked.material, *part)))
        for (name, voice), part in zip(found.items(), wide, strict=True)
    }


def _with(material: Material, prompts: Any, harmful: Any, retain: Any) -> Material:
    return material._replace(prompts=prompts, harmful=harmful, retain=retain)


def neutral(tokenizer: Any) -> Any:
    """The same tokenizer without its chat template; what ended answers there ends them still."""
    made = copy.copy(tokenizer)
    # The template may be at fault; where there is no end of text at all, the neutral one tells.
    with suppress(UserError):
        made.stop_ids = stop_tokens(tokenizer)
    made.chat_template = None
    return made

"""Models asked under a meter: :mod:`~immunax.judges.evaluate` with what was read and written, and how fast."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import numpy as np

from immunax.data.batches import sizes
from immunax.judges import evaluate as judges
from immunax.judges.choice import Accuracy, Quiz
from immunax.judges.choice import accuracy as choice_accuracy
from immunax.judges.evaluate import Evaluation, Given, Material, Scores
from immunax.models.config import DecoderConfig
from immunax.models.flops import forward_flops
from immunax.models.model import Model, Params
from immunax.runtime.mesh import device_count, mesh_of
from immunax.runtime.performance import Meter
from immunax.runtime.phase import Work

PHASE = "evaluate"
"""What the accounts of a run call it; a step is a prompt that is answered, or a given answer that is weighed."""


def meter(model: Model, devices: int) -> Meter:
    """The meter of the phase.

    Args:
      model: that is asked.
      devices: that it is on.
    """
    return Meter(PHASE, "sequence", devices, model.dtype)


def given_by(
    evaluation: Evaluation,
    model: Model,
    params: Params,
    material: Material,
    key: jax.Array,
    advance: Callable[[], None] = lambda: None,
) -> Given:
    """:func:`immunax.judges.evaluate.given_by` under the meter."""
    clock = meter(model, device_count(mesh_of(params)))
    with clock.running():
        given = judges.given_by(evaluation, model, params, material, key, advance)
        clock.done(lambda: asked_work(model.config, material, given))
    return given


def evaluate(
    evaluation: Evaluation,
    model: Model,
    params: Params,
    tokenizer: Any,
    material: Material,
    key: jax.Array,
    advance: Callable[[], None] = lambda: None,
) -> Scores:
    """:func:`immunax.judges.evaluate.evaluate` under the meter; what judges make of the answers is in no rate."""
    given = given_by(evaluation, model, params, material, key, advance)
    return judges.judged(evaluation, tokenizer, material, given)


def accuracy(model: Model, params: Params, asked: Quiz) -> Accuracy:
    """:func:`immunax.judges.choice.accuracy` under the meter."""
    clock = meter(model, device_count(mesh_of(params)))
    with clock.running():
        found = choice_accuracy(model, params, asked)
        clock.done(lambda: _weighed(model.config, asked.batches, 1))
    return found


def asked_work(config: DecoderConfig, material: Material, given: Given) -> Work:
    """What asking one model, or A members, has computed.

    Args:
      config: shape of the decoder.
      material: what was asked; of members, its prompts ``[A, P, T]``.
      given: what came of it, with the same axes.

    Returns:
      Work of which ``computed`` has every prompt as long as the longest, and every answer as the longest answer: what a batch of
      all of them would take.
    """
    parts = [Work(0)]
    if given.ids is not None:
        prompts = (np.asarray(material.prompts.segment_ids) > 0).sum(axis=-1)
        answers = (given.ids != -1).sum(axis=-1)
        read = [(int(prompt + answer), int(answer)) for prompt, answer in zip(prompts.flat, answers.flat, strict=True)]
        width = material.prompts.segment_ids.shape[-1] + int(answers.max(initial=0))
        parts.append(Work(len(read), _tokens(read), len(read) * width, forward_flops(config, read)))
    for batches, marks in ((material.harmful, given.harmful), (material.retain, given.retain)):
        if batches is not None and marks is not None:
            parts.append(_weighed(config, batches, math.prod(marks.nll.shape[:-2])))
    return reduce(Work.plus, parts)


def _weighed(config: DecoderConfig, batches: Any, members: int) -> Work:
    read = sizes(batches)
    computed = members * batches.segment_ids.size
    return Work(members * len(read), members * _tokens(read), computed, members * forward_flops(config, read))


def _tokens(read: list[tuple[int, int]]) -> int:
    return sum(size for size, _ in read)

"""The cells that a suite plans for some models, each with the name of everything that its numbers come from."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from immunax.models import speech
from immunax.models.model import Model, Params
from immunax.runtime import digest, manifest
from immunax.runtime.code import code_digest
from immunax.stages.bench import Bench
from immunax.stages.cells import Cell
from immunax.stages.identity import identity
from immunax.stages.measure import measure
from immunax.stages.suite import Suite
from immunax.stages.voices import Voice


class Weights(NamedTuple):
    """Plain weights, and their SHA-256 by :func:`~immunax.runtime.digest.of_tree`."""

    params: Params
    digest: str


@dataclass(frozen=True)
class Group:
    """Cells that run as one program on one model.

    Attributes:
      cells: one or more, of one family.
      weights: of the model.
      key: everything that the numbers come from, by content, but for the role of the model and this package's own code.
      code: what makes them: functions, and the objects that they are given.
    """

    cells: tuple[Cell, ...]
    weights: Weights
    key: Mapping[str, Any]
    code: tuple[Any, ...]

    @property
    def first(self) -> Cell:
        """Of its cells."""
        return self.cells[0]

    @property
    def identity(self) -> str:
        """SHA-256 of key and code: where it differs, so may the numbers."""
        return digest.of_json({**self.key, "code": code_digest(self.code)})


def named_by_content(
    shared: Bench, suite: Suite, model: Model, models: Mapping[str, Weights], planned: Iterable[tuple[Cell, ...]]
) -> list[Group]:
    """Groups of cells with what their numbers come from.

    Args:
      shared: data and judges.
      suite: whose attacks name all that they need.
      model: static.
      models: weights by role.
      planned: cells that run together.

    Raises:
      UserError: something that an attack, a judge or a task reads cannot be read.
    """
    common = _common(shared, suite, model)
    spoken = {template: _speech(voice) for template, voice in shared.voices.items()}
    return [
        _group(shared, suite, cells, models[cells[0].model], {**common, "speech": spoken.get(cells[0].template)})
        for cells in planned
    ]


def _group(shared: Bench, suite: Suite, cells: tuple[Cell, ...], weights: Weights, common: Mapping[str, Any]) -> Group:
    own = [(cell.family, dict(cell.setting), cell.seed, identity(cell.attack)) for cell in cells]
    code = measure, suite.task, suite.choices, shared.evaluation, *(cell.attack for cell in cells)
    return Group(cells, weights, {**common, "weights": weights.digest, "cells": own}, code)


def _common(shared: Bench, suite: Suite, model: Model) -> dict[str, Any]:
    """What all cells of a certificate have in common."""
    return {
        "measured": suite.measured,
        "task": identity(suite.task),
        "choices": identity(() if suite.choices is None else suite.choices.items(shared.splits)),
        "harmless": [suite.harmless_prompts, digest.of_json([asdict(each) for each in shared.harmless])],
        "exam": [identity(shared.evaluation), suite.transfer_prompts],
        "splits": digest.of_json(asdict(shared.splits)),
        "seed": shared.seed,
        "model": repr(model),
        "versions": manifest.versions(),
    }


def _speech(voice: Voice) -> list[Any]:
    """What the model is asked as tokenizer and template put it, and what ends its answers."""
    asked = voice.asked.material
    encoded = digest.of_tree((asked.prompts, asked.harmful, asked.retain))
    return [speech.digests(voice.tokenizer), encoded, asked.stop, asked.thinking]

"""Attack one model with a population, and score every member."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.attack import Attack
from immunax.attacks.population import run_population
from immunax.attacks.programs import Program, programs
from immunax.data.dialog import Splits
from immunax.judges.evaluate import Evaluation, Material, Scores, asked_by, held_out
from immunax.judges.examination import Examination, Questions, examination, judged
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class PopulationTeam:
    """Attacks and how their success is measured, on encoded data, ready for any number of models.

    Attributes:
      evaluation: judges and amounts.
      material: held-out data, as the attackers put it to an attacked model.
      parts: the attacks by program.
      examination, questions: the evaluation as a part of those programs.
    """

    evaluation: Evaluation
    material: Material
    parts: tuple[Program, ...]
    examination: Examination
    questions: Questions


class Member(NamedTuple):
    """One attack of a population.

    Attributes:
      scores: of the attacked model.
      loss: ``[K]``, before every step, nats per answer token; NaN after a divergence.
      diverged: it was frozen at its last finite weights.
    """

    scores: Scores
    loss: np.ndarray
    diverged: bool


def assemble_population(
    attacks: Sequence[Attack], evaluation: Evaluation, tokenizer: Any, splits: Splits
) -> PopulationTeam:
    """Encodes everything once.

    Args:
      attacks: of one kind, whose models are asked in one way.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: training data of the attacks, and held-out data.

    Raises:
      UserError: the attacks are of several kinds, or the data lack what they or the evaluation need.
    """
    kinds = sorted({type(attack).__name__ for attack in attacks})
    if len(kinds) != 1:
        raise UserError(
            f"population: expected attacks of one kind, got {', '.join(kinds) or 'none'}: run each kind apart."
        )
    material = asked_by(
        held_out(evaluation, tokenizer, getattr(splits, evaluation.split)), attacks[0], evaluation, tokenizer
    )
    return PopulationTeam(
        evaluation, material, programs(attacks, tokenizer, splits), *examination(evaluation, material)
    )


def attack_and_score(
    team: PopulationTeam, model: Model, params: Params, tokenizer: Any, seed: int, mesh: Mesh | None = None
) -> tuple[Member, ...]:
    """Runs every attack on one set of weights, and judges what each left.

    Args:
      team: from :func:`assemble_population`.
      model: static.
      params: plain weights; untouched.
      tokenizer: the model's.
      seed: of every random key.
      mesh: members are sharded over its axis ``attack``.

    Returns:
      The members in the order of the attacks.

    Raises:
      UserError: not even one member at a time fits the memory.
    """
    outcome = run_population(team.parts, model, params, jax.random.key(seed), team.examination, team.questions, mesh)
    return tuple(
        Member(judged(team.evaluation, tokenizer, team.material, given), loss, bool(diverged))
        for given, loss, diverged in zip(outcome.found, outcome.losses, outcome.diverged, strict=True)
    )

"""Attack one model with a population, and score every member."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.population import run_population
from immunax.campaign.programs import Program, programs
from immunax.data.dialog import Splits
from immunax.data.prompts import Prompts, prompt_rows
from immunax.judges.evaluate import Evaluation, Material, Scores, held_out
from immunax.judges.examination import Answers, Examination, Questions, examination, in_batches, judged
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class PopulationTeam:
    """Attacks and how their success is measured, on encoded data, ready for any number of models.

    Attributes:
      evaluation: judges and amounts.
      material: held-out data as users would put it.
      parts: the attacks by program.
      examination, questions: the evaluation as a part of those programs.
      asked: by attack, the prompts as that attacker puts them to the attacked model.
    """

    evaluation: Evaluation
    material: Material
    parts: tuple[Program, ...]
    examination: Examination
    questions: Questions
    asked: tuple[Prompts, ...]


class Member(NamedTuple):
    """One attack of a population.

    Attributes:
      course: scores of the attacked model along the attack, the last of them at its end.
      loss: ``[K]``, before every step, nats per answer token; NaN after a divergence.
      diverged: it was frozen at its last finite weights.
    """

    course: tuple[Scores, ...]
    loss: np.ndarray
    diverged: bool

    @property
    def scores(self) -> Scores:
        """At the end."""
        return self.course[-1]


def assemble_population(
    attacks: Sequence[FineTuning],
    evaluation: Evaluation,
    tokenizer: Any,
    splits: Splits,
    material: Material | None = None,
) -> PopulationTeam:
    """Encodes everything once.

    Args:
      attacks: in any order, of any kinds.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: training data of the attacks, and held-out data.
      material: what attacked models are asked; by default the evaluation's own split.

    Raises:
      UserError: the data lack what the attacks or the evaluation need, or there is no attack.
    """
    if not attacks:
        raise UserError("population: expected at least one attack.")
    if material is None:
        material = held_out(evaluation, tokenizer, getattr(splits, evaluation.split))
    wordings = [tuple(map(attack.evaluation, material.dialogs)) for attack in attacks]
    encoded = {each: prompt_rows(tokenizer, each, evaluation.max_length) for each in dict.fromkeys(wordings)}
    width = max(each.tokens.shape[1] for each in encoded.values())
    batched = {wording: in_batches(evaluation, prompts, width) for wording, prompts in encoded.items()}
    return PopulationTeam(
        evaluation,
        material,
        programs(attacks, tokenizer, splits),
        *examination(evaluation, material),
        tuple(batched[wording] for wording in wordings),
    )


def attack_and_score(
    team: PopulationTeam,
    model: Model,
    params: Params,
    tokenizer: Any,
    seed: int,
    mesh: Mesh | None = None,
    times: int = 1,
) -> tuple[Member, ...]:
    """Runs every attack on one set of weights, and judges what each left.

    Args:
      team: from :func:`assemble_population`.
      model: static.
      params: plain weights; untouched.
      tokenizer: the model's.
      seed: of every random key.
      mesh: members are sharded over its axis ``attack``.
      times: how often along its course a member is scored, in equal parts; a divisor of its steps is used.

    Returns:
      The members in the order of the attacks.

    Raises:
      UserError: not even one member at a time fits the memory.
    """
    outcome = run_population(
        team.parts, model, params, jax.random.key(seed), team.examination, team.questions, team.asked, mesh, times
    )

    def course(given: Answers) -> tuple[Scores, ...]:
        each = (jax.tree.map(lambda leaf, time=time: leaf[time], given) for time in range(given.ids.shape[0]))
        return tuple(judged(team.evaluation, tokenizer, team.material, answers) for answers in each)

    return tuple(
        Member(course(given), loss, bool(diverged))
        for given, loss, diverged in zip(outcome.found, outcome.losses, outcome.diverged, strict=True)
    )

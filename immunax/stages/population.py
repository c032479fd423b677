"""Attack one model with a population, and score every member."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.attacks.segments import evenly
from immunax.campaign.common_layouts import Layouts
from immunax.campaign.population import Attacked, attacked
from immunax.campaign.programs import Program, programs
from immunax.campaign.undone import clipped
from immunax.data.batches import Batch
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.data.prompts import Prompts, prompt_rows, widened
from immunax.inner.state import Trace
from immunax.inner.weighing import Marks, Weigh
from immunax.judges.evaluate import Evaluation, Material, Scores, check_room, examine, held_out, judged
from immunax.judges.examination import Answer
from immunax.models.flops import training_flops
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import device_count
from immunax.stages.asking import asked_work, evaluate, meter


@dataclass(frozen=True)
class PopulationTeam:
    """Attacks and how their success is measured, on encoded data, ready for any number of models.

    Attributes:
      evaluation: judges and amounts.
      material: held-out data as users would put it.
      parts: the attacks by program.
      asked: ``[A, P, T]``, by attack, the prompts as that attacker puts them to the attacked model.
    """

    evaluation: Evaluation
    material: Material
    parts: tuple[Program, ...]
    asked: Prompts


class AttackScores(NamedTuple):
    """One attack of a population.

    Attributes:
      course: scores of the attacked model along the attack, the last of them at its end.
      loss: ``[K]``, before every step, nats per answer token; NaN after a divergence.
      diverged: it was frozen at its last finite weights.
      clipped: share of its steps that clipping made smaller.
    """

    course: tuple[Scores, ...]
    loss: np.ndarray
    diverged: bool
    clipped: float

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
    others: Sequence[Any] = (),
    layouts: Layouts = MappingProxyType({}),
) -> PopulationTeam:
    """Encodes everything once.

    Args:
      attacks: in any order, of any kinds.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: the data, of which attacks train on ``attack``.
      material: what attacked models are asked; by default the evaluation's own split.
      others: the tokenizer with other chat templates, for which everything is to have the same shapes.
      layouts: of the attacks' batches, which other attacks have too.

    Raises:
      UserError: the data lack what the attacks or the evaluation need, or there is no attack.
    """
    if not attacks:
        raise UserError("population: expected at least one attack.")
    if material is None:
        material = held_out(evaluation, tokenizer, getattr(splits, evaluation.split))
    wordings = [tuple(map(attack.evaluation, material.dialogs)) for attack in attacks]
    encoded = {each: prompt_rows(tokenizer, each, evaluation.max_length) for each in dict.fromkeys(wordings)}
    widths = [each.tokens.shape[1] for each in (material.prompts, *encoded.values())]
    for other in others:
        with suppress(UserError):  # what cannot be asked with it is told where that is tried
            widths += [prompt_rows(other, each, evaluation.max_length).tokens.shape[1] for each in encoded]
    width = max(widths)
    asked = [widened(encoded[wording], width) for wording in wordings]
    return PopulationTeam(
        evaluation,
        material,
        programs(attacks, tokenizer, splits, others, layouts),
        Prompts(*map(np.stack, zip(*asked, strict=True))),
    )


def attack_and_score(
    team: PopulationTeam,
    model: Model,
    params: Params,
    tokenizer: Any,
    seed: int,
    mesh: Mesh | None = None,
    times: int = 1,
) -> tuple[AttackScores, ...]:
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
    courses: dict[int, list[Scores]] = {}
    members: dict[int, AttackScores] = {}
    for turn in attacked(team.parts, model, params, jax.random.key(seed), mesh, times):
        for index, scores in enumerate(_scored(team, model, tokenizer, turn)):
            place, loss = turn.places[index], turn.losses[index]
            course = courses.setdefault(place, [])
            course.append(scores)
            part, member = _found(team.parts, place)
            held = clipped(part.attacks[member].tuning.optimizer, Trace(loss, turn.norms[index]))
            members[place] = AttackScores(tuple(course), loss, bool(turn.diverged_at[index] >= 0), held)
    return tuple(members[place] for place in sorted(members))


def costs(parts: Sequence[Program], place: int, model: Model, count: int) -> tuple[list[int], list[float]]:
    """Steps done, and FLOPs spent, whenever an attack was scored.

    Args:
      parts: the attacks by program.
      place: which attack.
      model: gives the shape that FLOPs are counted from.
      count: how often it was scored.
    """
    part, member = _found(parts, place)
    steps = evenly(part.steps, count)
    lora = part.attacks[member].tuning.lora
    return steps, [training_flops(model.config, part.trained_on(member, 0, step, False), lora) for step in steps]


def used(parts: Sequence[Program], place: int) -> Counts:
    """What became of an attack's dialogs: it trains on those that fit its length, which may be fewer than it was given.

    Args:
      parts: the attacks by program.
      place: which attack.
    """
    part, member = _found(parts, place)
    return part.counts[member]


def _found(parts: Sequence[Program], place: int) -> tuple[Program, int]:
    """The program of an attack, and its place there."""
    part = next(part for part in parts if place in part.places)
    return part, part.places.index(place)


def _scored(team: PopulationTeam, model: Model, tokenizer: Any, turn: Attacked) -> list[Scores]:
    """In turn on one device, as any model is; at once on several."""
    evaluation, members = team.evaluation, len(turn.places)
    prompts = jax.tree.map(lambda leaf: leaf[np.array(turn.places)], team.asked)
    if not turn.spread:
        each = [team.material._replace(prompts=_of(prompts, index)) for index in range(members)]
        return [
            evaluate(evaluation, model, turn.weights(index), tokenizer, asked, turn.own.key[index])
            for index, asked in enumerate(each)
        ]
    material = team.material._replace(prompts=prompts)
    check_room(evaluation, model, material)
    answer = partial(turn.each, Answer(model, material.stop, evaluation.decoding))

    def weigh(batch: Batch) -> Marks:
        return turn.each(Weigh(model), jax.tree.map(lambda leaf: np.broadcast_to(leaf, (members, *leaf.shape)), batch))

    clock = meter(model, device_count(turn.mesh))
    with clock.running():
        given = examine(evaluation, model, answer, weigh, material, turn.own.key[:members])
        clock.done(lambda: asked_work(model.config, material, given))
    return [judged(evaluation, tokenizer, material, _of(given, index)) for index in range(members)]


def _of(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)

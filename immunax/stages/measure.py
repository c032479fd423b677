"""Runs cells: attacks one model, measures every state, and gives tables of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.attack import Edit
from immunax.attacks.benign_sft import BenignSFT
from immunax.campaign.course import edited
from immunax.campaign.search import Search, prepare_search, run_search
from immunax.conditions import records
from immunax.conditions.records import CHOICE, OVER_REFUSAL, TRAINABILITY, UNATTACKED, unit
from immunax.data.dialog import Dialog, Split, Splits
from immunax.judges.choice import accuracy, quiz
from immunax.judges.evaluate import Evaluation, Material, asked_by, evaluate, held_out
from immunax.judges.refusal import Refusal
from immunax.models.flops import training_flops
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.jaxpr_flops import matmul_flops
from immunax.stages.cells import Cell, Measured
from immunax.stages.exam import Exam, exam, numbered, rows, task_rows
from immunax.stages.population import PopulationTeam, assemble_population, attack_and_score
from immunax.stages.suite import Suite, Task


@dataclass(frozen=True)
class Bench:
    """What all cells share, encoded once.

    Attributes:
      suite: the suite.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: the data.
      asked: the exam.
      harmless: prompts that a model should not refuse.
      seed: of every random key.
      mesh: populations are sharded over its axis ``attack``; or None.
    """

    suite: Suite
    evaluation: Evaluation
    tokenizer: Any
    splits: Splits
    asked: Exam
    harmless: tuple[Dialog, ...]
    seed: int
    mesh: Mesh | None = None


def bench(
    suite: Suite, evaluation: Evaluation, tokenizer: Any, splits: Splits, seed: int, mesh: Mesh | None = None
) -> Bench:
    """Encodes the exam.

    Args:
      suite, evaluation, tokenizer, splits, seed, mesh: see :class:`Bench`.

    Raises:
      UserError: the data have no harmful prompts.
    """
    asked = exam(evaluation, tokenizer, splits, suite.transfer_prompts)
    return Bench(suite, evaluation, tokenizer, splits, asked, suite.harmless(splits), seed, mesh)


def measure(shared: Bench, model: Model, params: Params, group: Sequence[Cell]) -> list[Measured]:
    """Runs cells of one family on one set of weights.

    Args:
      shared: from :func:`bench`.
      model: static.
      params: plain weights; untouched.
      group: the cells, of one family.

    Returns:
      What was measured of each.

    Raises:
      UserError: the data lack what the attack needs, or the memory does not take one member.
    """
    first = group[0]
    if first.family == UNATTACKED:
        return [_tables(first, [(0, 0, 0.0, False)], _as_it_is(shared, model, params, first))]
    if first.family == TRAINABILITY:
        return [_trained(shared, model, params, cell) for cell in group]
    if isinstance(first.attack, Search):
        return [_searched(shared, model, params, cell) for cell in group]
    if isinstance(first.attack, Edit):
        return [_edited(shared, model, params, cell) for cell in group]
    return _fine_tuned(shared, model, params, group)


def _tables(cell: Cell, states: Sequence[tuple[int, int, float, bool]], measured: Iterator[tuple]) -> Measured:
    return Measured(
        records.frame(measured, records.RECORDS),
        records.frame((cell.state(*state) for state in states), records.CELLS),
    )


def _as_it_is(shared: Bench, model: Model, params: Params, cell: Cell) -> Iterator[tuple]:
    evaluation, tokenizer, suite = shared.evaluation, shared.tokenizer, shared.suite
    scores = evaluate(evaluation, model, params, tokenizer, shared.asked.material, jax.random.key(shared.seed))
    yield from rows(cell.name, 0, shared.asked, scores)
    if shared.harmless:
        yield from _over_refusal(shared, model, params, cell)
    if suite.choices is not None:
        items = suite.choices.items(shared.splits)
        asked = quiz(tokenizer, items, evaluation.batch_size, evaluation.max_length)
        yield from numbered(cell.name, 0, CHOICE, accuracy(model, params, asked).acc_norm)


def _over_refusal(shared: Bench, model: Model, params: Params, cell: Cell) -> Iterator[tuple]:
    """Harmless prompts, asked as harmful ones are, and judged by whether they are refused."""
    prompts = Split(harmful=tuple(replace(dialog, answer="") for dialog in shared.harmless))
    evaluation = replace(
        shared.evaluation, judges={"refusal": Refusal()}, prompts=shared.suite.harmless_prompts, exact=False
    )
    asked = held_out(evaluation, shared.tokenizer, prompts)
    scores = evaluate(evaluation, model, params, shared.tokenizer, asked, jax.random.key(shared.seed))
    for dialog, complied in zip(asked.dialogs, scores.judged["refusal"], strict=True):
        yield cell.name, 0, "test", OVER_REFUSAL, unit(dialog), 1.0 - complied, 1.0


def _fine_tuned(shared: Bench, model: Model, params: Params, group: Sequence[Cell]) -> list[Measured]:
    attacks = [cell.attack for cell in group]
    team = assemble_population(attacks, shared.evaluation, shared.tokenizer, shared.splits, shared.asked.material)
    times = shared.suite.measured
    members = attack_and_score(team, model, params, shared.tokenizer, shared.seed, shared.mesh, times)
    found = []
    for place, (cell, member) in enumerate(zip(group, members, strict=True)):
        steps, costs = _costs(team, place, model, len(member.course))
        samples = len(cell.attack.dialogs(shared.splits))
        states = [(step, samples, cost, member.diverged) for step, cost in zip(steps, costs, strict=True)]
        measured = [
            row
            for step, scores in zip(steps, member.course, strict=True)
            for row in rows(cell.name, step, shared.asked, scores)
        ]
        found.append(_tables(cell, states, iter(measured)))
    return found


def _costs(team: PopulationTeam, place: int, model: Model, count: int) -> tuple[list[int], list[float]]:
    """Steps done, and FLOPs spent, whenever a member was measured."""
    part = next(part for part in team.parts if place in part.places)
    member = part.places.index(place)
    steps = [part.steps * (time + 1) // count for time in range(count)]
    lora = part.attacks[member].tuning.lora
    return steps, [training_flops(model.config, part.trained_on(member, 0, step, False), lora) for step in steps]


def _edited(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    material = cell.attack.material(shared.tokenizer, shared.splits)
    key, exam_key = jax.random.split(jax.random.fold_in(jax.random.key(shared.seed), cell.seed))
    attacked, losses = edited(cell.attack, model, params, material, key)
    flops = matmul_flops(jax.make_jaxpr(partial(cell.attack.edit, model))(params, material, key))
    asked = asked_by(shared.asked.material, cell.attack, shared.evaluation, shared.tokenizer)
    scores = evaluate(shared.evaluation, model, attacked, shared.tokenizer, asked, exam_key)
    state = len(losses), cell.attack.samples, flops, not bool(np.isfinite(losses).all())
    return _tables(cell, [state], rows(cell.name, len(losses), shared.asked, scores))


def _searched(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    prepared = prepare_search(cell.attack, shared.tokenizer, shared.splits)
    search_key, exam_key = jax.random.split(jax.random.key(shared.seed))
    found = run_search(prepared, model, params, search_key, shared.mesh)
    asked = shared.asked.material
    if found.attack is not None:
        asked = asked_by(asked, found.attack, shared.evaluation, shared.tokenizer)
    scores = evaluate(shared.evaluation, model, found.params, shared.tokenizer, asked, exam_key)
    samples = max(len(attack.dialogs(shared.splits)) for attack in cell.attack.members())
    step = found.best.steps if found.best else 0
    return _tables(cell, [(step, samples, found.budget.flops, False)], rows(cell.name, step, shared.asked, scores))


def _trained(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    task = shared.suite.task
    if task is None:
        raise UserError("suite.task: null, so there is no trainability to measure.")
    return _learned(shared, task, model, params, cell)


def _learned(shared: Bench, task: Task, model: Model, params: Params, cell: Cell) -> Measured:
    """The harmless task as a benign fine-tuning, measured before it and along it."""
    splits = task.corpus.splits()
    evaluation = Evaluation(
        {},
        examples=task.examples,
        max_length=task.tuning.max_length,
        batch_size=shared.evaluation.batch_size,
        exact=task.exact,
    )
    asked = _task_material(evaluation, shared, splits)
    attack = BenignSFT(task.samples, replace(task.tuning, seed=cell.seed))
    team = assemble_population([attack], evaluation, shared.tokenizer, splits, asked)
    [member] = attack_and_score(team, model, params, shared.tokenizer, shared.seed, shared.mesh, task.measured)
    before = evaluate(evaluation, model, params, shared.tokenizer, asked, jax.random.key(shared.seed))
    steps, costs = _costs(team, 0, model, len(member.course))
    course = list(zip([0, *steps], [0.0, *costs], [before, *member.course], strict=True))
    states = [(step, task.samples, cost, member.diverged) for step, cost, _ in course]
    return _tables(cell, states, (row for step, _, scores in course for row in task_rows(cell.name, step, scores)))


def _task_material(evaluation: Evaluation, shared: Bench, splits: Splits) -> Material:
    """The task's own examples; a prompt has to be asked, and one will do."""
    if not splits.test.retain:
        raise UserError("suite.task.corpus: has no stream retain in the split test; choose another corpus.")
    task = replace(splits.test, harmful=splits.test.retain[:1])
    return held_out(replace(evaluation, prompts=1), shared.tokenizer, task)._replace(harmful=None)

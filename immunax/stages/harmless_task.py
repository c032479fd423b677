"""Trainability: the suite's harmless task as a benign fine-tuning."""

from dataclasses import replace
from itertools import chain
from typing import Any

import jax

from immunax.attacks.benign_sft import BenignSFT
from immunax.data.dialog import Splits
from immunax.judges.evaluate import Evaluation, Material, held_out
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.stages.asking import evaluate
from immunax.stages.bench import Bench, tables
from immunax.stages.cells import Cell, Measured, State
from immunax.stages.exam import kept, task_rows
from immunax.stages.kept import count_tokens
from immunax.stages.population import assemble_population, attack_and_score, costs, used


def learned(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    """Measures a model before the task's fine-tuning and along it.

    Args:
      shared: from :func:`~immunax.stages.bench.bench`.
      model: static.
      params: plain weights; untouched.
      cell: gives the seed.

    Raises:
      UserError: the suite has no task, or its corpus lacks what it needs.
    """
    task, tokenizer = shared.suite.task, shared.voice(cell).tokenizer
    if task is None:
        raise UserError("suite.task: null, so there is no trainability to measure.")
    splits = task.corpus.splits()
    evaluation = Evaluation(
        {},
        examples=task.examples,
        max_length=task.tuning.max_length,
        batch_size=shared.evaluation.batch_size,
        exact=task.exact,
    )
    asked = _material(evaluation, tokenizer, splits, shared.voice(cell).asked.material)
    attack = BenignSFT(task.samples, replace(task.tuning, seed=cell.seed))
    team = assemble_population([attack], evaluation, tokenizer, splits, asked, layouts=shared.layouts)
    count_tokens(cell.family, team.parts)
    [member] = attack_and_score(team, model, params, tokenizer, shared.seed, shared.mesh, task.measured)
    before = evaluate(evaluation, model, params, tokenizer, asked, jax.random.key(shared.seed))
    steps, spent = costs(team.parts, 0, model, len(member.course))
    course = list(zip([0, *steps], [0.0, *spent], [before, *member.course], strict=True))
    states = [State(step, task.samples, cost, member.diverged, member.clipped) for step, cost, _ in course]
    measured = chain.from_iterable(task_rows(cell.name, step, scores) for step, _, scores in course)
    return tables(cell, states, chain(measured, kept(cell.name, steps[-1], [used(team.parts, 0)])))


def _material(evaluation: Evaluation, tokenizer: Any, splits: Splits, beside: Material) -> Material:
    """The task's own examples, in the shapes of the exam; a prompt has to be asked, and one will do."""
    if not splits.test.retain:
        raise UserError("suite.task.corpus: has no stream retain in the split test; choose another corpus.")
    task = replace(splits.test, harmful=splits.test.retain[:1])
    return held_out(replace(evaluation, prompts=1), tokenizer, task, beside)._replace(harmful=None)

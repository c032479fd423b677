"""Runs cells: attacks one model, measures every state, and gives tables of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import jax
import numpy as np

from immunax.attacks.attack import Edit
from immunax.campaign.course import edit_flops, edited
from immunax.campaign.search import Search, SearchResult, prepare_search, run_search
from immunax.campaign.undone import clipped, exploded
from immunax.conditions.edges import POPULATION, RATE
from immunax.conditions.records import CHOICE, OVER_REFUSAL, TRAINABILITY, UNATTACKED, unit
from immunax.data.dialog import Split
from immunax.judges.choice import quiz
from immunax.judges.evaluate import asked_by, held_out
from immunax.judges.refusal import Refusal
from immunax.models.model import Model, Params
from immunax.stages.asking import accuracy, evaluate
from immunax.stages.bench import Bench, tables
from immunax.stages.cells import Cell, Measured, State
from immunax.stages.exam import check_answered, kept, numbered, rows
from immunax.stages.harmless_task import learned
from immunax.stages.kept import count_tokens, tell_programs
from immunax.stages.population import assemble_population, attack_and_score, costs, used


def measure(shared: Bench, model: Model, params: Params, group: Sequence[Cell]) -> list[Measured]:
    """Runs cells of one family on one set of weights.

    Args:
      shared: from :func:`~immunax.stages.bench.bench`.
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
        return [tables(first, [State(0, 0, 0.0)], _as_it_is(shared, model, params, first))]
    if first.family == TRAINABILITY:
        return [learned(shared, model, params, cell) for cell in group]
    if isinstance(first.attack, Search):
        return [_searched(shared, model, params, cell) for cell in group]
    if isinstance(first.attack, Edit):
        return [_edited(shared, model, params, cell) for cell in group]
    return _fine_tuned(shared, model, params, group)


def _as_it_is(shared: Bench, model: Model, params: Params, cell: Cell) -> Iterator[tuple]:
    evaluation, voice, suite = shared.evaluation, shared.voice(cell), shared.suite
    scores = evaluate(evaluation, model, params, voice.tokenizer, voice.asked.material, jax.random.key(shared.seed))
    yield from rows(cell.name, 0, voice.asked, scores)
    if shared.harmless:
        yield from _over_refusal(shared, model, params, cell)
    if suite.choices is not None:
        items = suite.choices.items(shared.splits)
        size, layouts = voice.asked.material.given
        asked = quiz(voice.tokenizer, items, size, evaluation.max_length, layouts)
        yield from numbered(cell.name, 0, CHOICE, accuracy(model, params, asked).acc_norm)


def _over_refusal(shared: Bench, model: Model, params: Params, cell: Cell) -> Iterator[tuple]:
    """Harmless prompts, asked as harmful ones are, and judged by whether they are refused."""
    prompts = Split(harmful=tuple(replace(dialog, answer="") for dialog in shared.harmless))
    evaluation = replace(
        shared.evaluation, judges={"refusal": Refusal()}, prompts=shared.suite.harmless_prompts, exact=False
    )
    tokenizer = shared.voice(cell).tokenizer
    asked = held_out(evaluation, tokenizer, prompts, shared.voice(cell).asked.material)
    scores = evaluate(evaluation, model, params, tokenizer, asked, jax.random.key(shared.seed))
    check_answered(scores)
    for dialog, complied in zip(asked.dialogs, scores.judged["refusal"], strict=True):
        yield cell.name, 0, "test", OVER_REFUSAL, unit(dialog), 1.0 - complied, 1.0


def _fine_tuned(shared: Bench, model: Model, params: Params, group: Sequence[Cell]) -> list[Measured]:
    attacks, voice = [cell.attack for cell in group], shared.voice(group[0])
    asked, others = voice.asked.material, shared.others(group[0])
    team = assemble_population(
        attacks, shared.evaluation, voice.tokenizer, shared.splits, asked, others, shared.layouts
    )
    tell_programs(group[0].family, team.parts)
    count_tokens(group[0].family, team.parts)
    times = shared.suite.measured
    members = attack_and_score(team, model, params, voice.tokenizer, shared.seed, shared.mesh, times)
    found = []
    for place, (cell, member) in enumerate(zip(group, members, strict=True)):
        steps, spent = costs(team.parts, place, model, len(member.course))
        samples = used(team.parts, place).kept
        diverged = member.diverged or exploded(member.loss, model.config.vocab_size)
        states = [State(step, samples, cost, diverged, member.clipped) for step, cost in zip(steps, spent, strict=True)]
        measured = [
            row
            for step, scores in zip(steps, member.course, strict=True)
            for row in rows(cell.name, step, voice.asked, scores)
        ]
        measured += kept(cell.name, steps[-1], [used(team.parts, place)])
        found.append(tables(cell, states, iter(measured)))
    return found


def _edited(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    voice = shared.voice(cell)
    material = shared.edited(cell)
    key, exam_key = jax.random.split(jax.random.fold_in(jax.random.key(shared.seed), cell.seed))
    attacked, losses = edited(cell.attack, model, params, material, key)
    flops = edit_flops(cell.attack, material, model, params, key)
    asked = asked_by(voice.asked.material, cell.attack, shared.evaluation, voice.tokenizer)
    scores = evaluate(shared.evaluation, model, attacked, voice.tokenizer, asked, exam_key)
    state = State(len(losses), cell.attack.samples, flops, not bool(np.isfinite(losses).all()))
    return tables(cell, [state], rows(cell.name, len(losses), voice.asked, scores))


def _searched(shared: Bench, model: Model, params: Params, cell: Cell) -> Measured:
    voice = shared.voice(cell)
    material, others = voice.asked.material, shared.others(cell)
    prepared = prepare_search(cell.attack, voice.tokenizer, shared.splits, others, shared.layouts, material)
    tell_programs(cell.family, prepared.parts)
    count_tokens(cell.family, prepared.parts)
    search_key, exam_key = jax.random.split(jax.random.key(shared.seed))
    found = run_search(prepared, model, params, search_key, shared.mesh)
    asked = material
    if found.attack is not None:
        asked = asked_by(material, found.attack, shared.evaluation, voice.tokenizer)
    scores = evaluate(shared.evaluation, model, found.params, voice.tokenizer, asked, exam_key)
    samples = max(len(attack.dialogs(shared.splits)) for attack in cell.attack.members())
    step = found.best.steps if found.best else 0
    counts = [each for part in prepared.parts for each in part.counts]
    measured = chain(rows(cell.name, step, voice.asked, scores), kept(cell.name, step, counts))
    return tables(cell, [search_state(cell, found, step, samples, np.log(model.config.vocab_size))], measured)


def search_state(cell: Cell, found: SearchResult, step: int, samples: int, guess: float) -> State:
    """What a search came to, with the population and the learning rate that it chose.

    Args:
      cell: of the search.
      found: by it.
      step, samples: of the attack that was found.
      guess: what guessing costs, nats per token.
    """
    if found.attack is None or found.best is None:
        # None keeps the utility. Where all diverged, or ended where guessing would do more harm, the search shows nothing.
        last = {trial.member: trial.diverged or not trial.harmful_nll <= guess for trial in found.trials}
        return State(step, samples, found.budget.flops, all(last.values()))
    optimizer = found.attack.tuning.optimizer
    chosen = {POPULATION: cell.attack.population_of(found.best.member), RATE: float(optimizer.learning_rate)}
    return State(step, samples, found.budget.flops, False, clipped(optimizer, found.trace), chosen)

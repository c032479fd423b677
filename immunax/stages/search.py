"""Search for the best attack on one model, and score the model before and after it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.campaign.search import PreparedSearch, Search, SearchResult, prepare_search, run_search
from immunax.conditions.episode import Course, Episode
from immunax.data.chat import Counts
from immunax.data.dialog import Dialog
from immunax.judges.evaluate import Evaluation, asked_by, held_out
from immunax.models.model import Params
from immunax.runtime import console, goodput, performance
from immunax.runtime.metrics import json_number
from immunax.stages.asking import evaluate
from immunax.stages.kept import ATTACK, record_counts, record_programs
from immunax.stages.red_team import check_lengths, tell_language
from immunax.stages.setup import Setup

_SHOWN = 10


class Searched(NamedTuple):
    """What a search leaves.

    Attributes:
      episode: of the attack found; its prompts were answered before and after it alone.
      found: what the search saw.
      prompts: the judged prompts.
      data: how much of the data was used, by stream, JSON-able: of a population's attacks, the one that lost most.
      counts: what became of the dialogs of the attack found, and of those whose given answers are weighed.
      tokens: that all members would compute, JSON-able.
    """

    episode: Episode
    found: SearchResult
    prompts: tuple[Dialog, ...]
    data: Mapping[str, Any]
    counts: Mapping[str, Counts]
    tokens: Mapping[str, Any]


def search_and_score(
    search: Search, evaluation: Evaluation, setup: Setup, params: Params, name: str, seed: int, mesh: Mesh | None = None
) -> Searched:
    """Searches on the validation split, and scores what was found on the evaluation's own.

    Args:
      search: the populations.
      evaluation: judges and amounts.
      setup: model and data.
      params: plain weights; untouched.
      name: of the model, for the progress.
      seed: of every random key.
      mesh: members are spread over its axis ``attack``.

    Returns:
      :class:`Searched`. Where no attack keeps the utility, the model after is the model before.

    Raises:
      UserError: the data lack what the search or the evaluation needs, a sequence may be longer than the model's
        context, or the members do not fit the memory.
    """
    tokenizer, longest = setup.checkpoint.tokenizer, max(each.tuning.max_length for each in search.members())
    check_lengths(setup.model, evaluation, "attack tuning.max_length", longest)
    tell_language(search.members(), evaluation)
    before = held_out(evaluation, tokenizer, getattr(setup.splits, evaluation.split))
    prepared = prepare_search(search, tokenizer, setup.splits, beside=before)
    counts, lengths = _trained_on(prepared)
    lengths |= dict.fromkeys(prepared.counts, f"tuning.max_length={longest}")
    lengths |= dict.fromkeys(before.counts, f"judge.max_length={evaluation.max_length}")
    data = record_counts({**counts, **prepared.counts, **before.counts}, lengths)
    tokens = record_programs(prepared.parts)
    search_key, before_key, after_key = jax.random.split(jax.random.key(seed), 3)
    with console.phase(f"search attacks on {name}"), goodput.spending("attack"):
        found = run_search(prepared, setup.model, params, search_key, mesh)
    with console.phase(f"evaluate {name}"):
        first = evaluate(evaluation, setup.model, params, tokenizer, before, before_key)
        after = before if found.attack is None else asked_by(before, found.attack, evaluation, tokenizer)
        last = evaluate(evaluation, setup.model, found.params, tokenizer, after, after_key)
    performance.end(name)
    probes = {judge: np.stack([first.judged[judge], last.judged[judge]]) for judge in evaluation.judges}
    samples = max(attack.samples for attack in search.members())
    steps, paid = np.array([0, len(found.loss)]), (np.array([0.0, samples]), np.array([0.0, found.budget.flops]))
    course = Course(np.asarray(found.loss, np.float64), steps, probes, *paid)
    won = {} if found.best is None else {ATTACK: _by_place(prepared)[found.best.member]}
    return Searched(Episode(first, last, course), found, before.dialogs, data, {**won, **before.counts}, tokens)


def _by_place(prepared: PreparedSearch) -> dict[int, Counts]:
    """What became of each member's dialogs, by its place."""
    return {place: each for part in prepared.parts for place, each in zip(part.places, part.counts, strict=True)}


def _trained_on(prepared: PreparedSearch) -> tuple[dict[str, Counts], dict[str, str]]:
    """Of each population's member that lost most, what became of its dialogs, and the field that sets their length."""
    counts, first = _by_place(prepared), 0
    worst, lengths = {}, {}
    for name, population in prepared.search.populations.items():
        members = population.members()
        place = min(range(first, first + len(members)), key=lambda place: counts[place].share)
        worst[f"attack {name}"] = counts[place]
        lengths[f"attack {name}"] = f"tuning.max_length={members[place - first].max_length}"
        first += len(members)
    return worst, lengths


def show(found: SearchResult) -> None:
    """Prints the trials that did most harm, and the budget."""
    budget = found.budget
    title = (
        f"search: {budget.steps} steps, {budget.tokens} tokens, {budget.flops:.2e} FLOPs; "
        f"{'the best kept the utility' if found.best else 'no attack kept the utility'}"
    )
    ranked = sorted(found.trials, key=lambda trial: (not trial.allowed, trial.harmful_nll))
    rows = [
        [_told(trial.settings), str(trial.steps), f"{trial.harmful_nll:.3f}", _verdict(trial)]
        for trial in ranked[:_SHOWN]
    ]
    console.table(title, ["attack", "steps", "validation harmful NLL", "utility"], rows)


def to_json(found: SearchResult) -> dict[str, Any]:
    """The trials, the best of them and the budget, JSON-able; a number that is not finite is None."""

    def one(trial: Any) -> dict[str, Any]:
        settings = {path: value if _plain(value) else str(value) for path, value in trial.settings.items()}
        return {**trial._asdict(), "settings": settings, "harmful_nll": json_number(trial.harmful_nll)}

    return {
        "best": None if found.best is None else one(found.best),
        "attack": None if found.attack is None else str(found.attack),
        "budget": found.budget._asdict(),
        "trials": [one(trial) for trial in found.trials],
    }


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in settings.items())


def _verdict(trial: Any) -> str:
    return "diverged" if trial.diverged else "kept" if trial.allowed else "lost"

"""An attacker who tunes: successive halving over a population, for the most harm that keeps the model useful.

Published defenses fall to a better-tuned attack, so one attack says little. The search ranks members by how likely they
make held-out harmful answers, on the validation split, which is for choosing hyper-parameters; the test split stays unseen.
An attacker wants a model that still works: only members that keep ``keep`` of its utility count, where utility is the
inverse perplexity of held-out harmless answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.budget import Budget, spent
from immunax.campaign.common_layouts import Layouts
from immunax.campaign.copies import read_by
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.grid import Population
from immunax.campaign.halved import halved
from immunax.campaign.members import chosen
from immunax.campaign.population import Runner
from immunax.campaign.programs import Program, programs
from immunax.campaign.ranking import Ranking, merit, rankings, weighed
from immunax.data.batches import in_rows
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.inner.context import check_longest, longest
from immunax.inner.halving import Best, Halving, Ranked
from immunax.inner.state import HEALTHY, Trace
from immunax.judges.evaluate import Material
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import data_ways, device_count, mesh_of, under
from immunax.runtime.performance import Meter
from immunax.runtime.phase import Work

PHASE = "search"
"""What the accounts of a run call it."""


@dataclass(frozen=True)
class Search:
    """Populations to search, and how.

    Attributes:
      populations: by name, each with its own grid, such as one of full weights and one of adapters. Members
        that train as one program are halved together, and the best of all programs is the one found.
      halving: how fast the search narrows down.
      keep: share of the utility that an attack must leave.
      examples: validation dialogs, harmful and harmless, that members are ranked by, of each.
    """

    populations: Mapping[str, Population]
    halving: Halving = field(default_factory=Halving)
    keep: float = 0.9
    examples: int = 16

    def __post_init__(self):
        if not self.populations:
            raise UserError("search populations: expected at least one.")
        if not 0 < self.keep <= 1 or self.examples < 1:
            raise UserError(
                f"search keep={self.keep}, examples={self.examples}: expected 0 < keep <= 1 and examples >= 1."
            )

    def settings(self) -> tuple[dict[str, Any], ...]:
        """What sets each member apart, over all populations."""
        return tuple(each for population in self.populations.values() for each in population.settings())

    def members(self) -> tuple[FineTuning, ...]:
        """The attacks, in the order of :meth:`settings`."""
        return tuple(each for population in self.populations.values() for each in population.members())

    def population_of(self, member: int) -> str:
        """The name of the population that a member, by its place in :meth:`members`, is of."""
        return [name for name, each in self.populations.items() for _ in each.settings()][member]


@dataclass(frozen=True)
class PreparedSearch:
    """A search on encoded data.

    Attributes:
      search: the search.
      parts: its members, by program.
      ranked_by: by member, in its own wording.
      counts: what became of the dialogs of either; of the harmful ones in the wording that lost most.
    """

    search: Search
    parts: tuple[Program, ...]
    ranked_by: tuple[Ranking, ...]
    counts: Mapping[str, Counts]


class Trial(NamedTuple):
    """One member at the end of one rung.

    Attributes:
      member: which of the search's members.
      settings: what sets it apart.
      steps: taken so far.
      harmful_nll: of validation harmful answers, nats per token.
      allowed: it is finite and keeps the utility.
      diverged: it is frozen.
    """

    member: int
    settings: dict[str, Any]
    steps: int
    harmful_nll: float
    allowed: bool
    diverged: bool


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
      best: the trial with the most harm among those that keep the utility, or None where none does.
      attack: its attack, or None.
      params: its weights, plain or adapted; those of the start where there is no best.
      trace: what its K steps saw.
      budget: spent on all members.
      trials: all of them, rung by rung.
    """

    best: Trial | None
    attack: FineTuning | None
    params: Params
    trace: Trace
    budget: Budget
    trials: tuple[Trial, ...]

    @property
    def loss(self) -> np.ndarray:
        """``[K]``, before every step."""
        return self.trace.loss


def prepare_search(
    search: Search,
    tokenizer: Any,
    splits: Splits,
    others: Sequence[Any] = (),
    layouts: Layouts = MappingProxyType({}),
    beside: Material | None = None,
) -> PreparedSearch:
    """Encodes every member, and the validation examples.

    Args:
      search: the search.
      tokenizer: the model's.
      splits: the members train on ``attack`` and are ranked on ``validation``.
      others: the tokenizer with other chat templates, for which everything is to have the same shapes.
      layouts: of the members' batches, which other attacks have too.
      beside: what is asked too, so that what members are ranked by has the same shapes.

    Raises:
      UserError: the data lack a stream.
    """
    members = search.members()
    parts = programs(members, tokenizer, splits, others, layouts)
    harmful, retain = (
        [each for each in stream if each.answer][: search.examples]
        for stream in (splits.validation.harmful, splits.validation.retain)
    )
    for stream, dialogs in (("harmful", harmful), ("retain", retain)):
        if not dialogs:
            raise UserError(f"the search ranks by the stream {stream!r} of the validation split, which the data lack.")
    wordings = [tuple(map(member.evaluation, harmful)) for member in members]
    longest = max(member.tuning.max_length for member in members)
    different = list(dict.fromkeys(wordings))
    found, counts = rankings(different, retain, tokenizer, others, longest, beside)
    ranked_by = dict(zip(different, found, strict=True))
    return PreparedSearch(search, parts, tuple(ranked_by[each] for each in wordings), counts)


def run_search(
    prepared: PreparedSearch, model: Model, params: Params, key: jax.Array, mesh: Mesh | None = None
) -> SearchResult:
    """Searches for the best attack on one set of weights.

    Args:
      prepared: from :func:`prepare_search`.
      model: static.
      params: plain weights; untouched.
      key: the member of seed s gets ``fold_in(key, s)``.
      mesh: members are sharded over its axis ``attack``; by default the one that the weights lie on.

    Raises:
      UserError: the members do not fit the memory, or a dialog is longer than the model's context.
    """
    mesh = mesh_of(params) if mesh is None else mesh
    trained_on = max((part.batches.longest for part in prepared.parts), default=0)
    ranked_by = longest([each.batches for each in prepared.ranked_by])
    check_longest(model, "a dialog that the search reads", max(trained_on, ranked_by))
    search, settings, ways = prepared.search, prepared.search.settings(), data_ways(mesh)
    ranked_by = [each._replace(batches=in_rows(each.batches, ways, 1)) for each in prepared.ranked_by]
    limit = weighed(model, params, ranked_by[0])[1] - np.log(search.keep)
    trials: list[Trial] = []
    budget, found = Budget(0, 0, 0.0), []
    meter = Meter(PHASE, "step", device_count(mesh), model.dtype)
    for part in (each.in_rows(ways).at_start(model, params) for each in prepared.parts):
        rungs = search.halving.rungs(len(part.places), part.steps)
        with under(params):
            own = part.own(params, key)
        read = read_by(part.form, model, params)
        own, first_steps = share_first_steps(part, model, read, own, mesh)
        runner = Runner(part, model, read, own, first_steps, mesh)
        measured = [[ranked_by[place].batches] for place in part.places]
        paid = partial(spent, part, model=model, measured=measured)

        def told(ranked: Ranked, part: Program = part, paid: Callable[..., Budget] = paid) -> None:
            meter.done(lambda: _work(part, paid([ranked])))

        with meter.running():
            best, seen = halved(runner, rungs, partial(merit, ranked_by, model, limit), told)
        trials += _trials(part, seen, settings)
        budget = budget.plus(paid(seen))
        if best is not None:
            found.append((best, part, own, seen))
    if not found:
        return SearchResult(None, None, params, Trace(np.zeros(0), np.zeros(0)), budget, tuple(trials))
    best, part, own, seen = max(found, key=lambda each: each[0].value)
    trial = next(each for each in trials if (each.member, each.steps) == (part.places[best.place], best.steps))
    trace = _joined(seen, best)
    attacked = chosen(own, best.place).whole(params, best.trained)
    return SearchResult(trial, part.attacks[best.place], attacked, trace, budget, tuple(trials))


def _work(part: Program, paid: Budget) -> Work:
    """Of one rung: what its steps were trained on, and the FLOPs of ranking too."""
    return Work(paid.steps, paid.tokens, paid.steps * part.tokens_a_step, paid.flops)


def _joined(seen: Sequence[Ranked], best: Best) -> Trace:
    """What the steps of the member that was found saw, over all rungs up to where it was found."""
    mine = [jax.tree.map(lambda leaf, each=each: leaf[each.places == best.place], each.trace) for each in seen]
    return jax.tree.map(lambda *leaves: np.concatenate([row for leaf in leaves for row in leaf])[: best.steps], *mine)


def _trials(part: Program, seen: Sequence[Ranked], settings: Sequence[dict[str, Any]]) -> Iterator[Trial]:
    for each in seen:
        for row, index in enumerate(each.places):
            place, nll = part.places[index], -float(each.merit.value[row])
            allowed, diverged = bool(each.merit.allowed[row]), bool(each.diverged_at[row] != HEALTHY)
            yield Trial(place, settings[place], each.rung.end, nll, allowed, diverged)

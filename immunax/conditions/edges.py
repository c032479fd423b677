"""Learning rates that were tried, and whether the worst of them lies on an edge.

A family of fine-tunings is as strong as the best of its settings, and where that is the largest or the smallest learning rate
that was tried, a further one may be stronger. So a suite goes on once: to rates one factor beyond the edges where the worst
setting lies, for models that are not shown to fail already. Where the worst setting lies on an edge still, nothing *holds*
against it. All of this follows from the tables and from the rates that a suite's configuration names: anyone can check it.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from immunax.conditions.points import points
from immunax.conditions.policy import Policy
from immunax.conditions.records import REFERENCE, SUBJECT, Table
from immunax.conditions.resistance import worst_rate
from immunax.runtime.untrusted.values import Limits, parse_json

RATE = "tuning.optimizer.learning_rate"
"""The field of a fine-tuning, and its place in a cell's setting."""

TRIED, POPULATION = "tried", "population"
"""In the setting of a search: the rates of its populations by name, and the one that the best attack is of."""

FACTOR = 3.0
"""From an edge to the next rate beyond it: half a decade, as the grids of the suites have it."""

Rates = Mapping[str, tuple[float, ...]]
"""Learning rates in order, by population; one of no name where a family is no search. Empty of attacks that have none."""

_SETTING = Limits(size=1 << 16, values=10_000)


class Chosen(NamedTuple):
    """What a cell's setting says.

    Attributes:
      population: of a search that the attack is of, else ``""``.
      rate: its learning rate, None where it has none.
      tried: the rates that the cell stands for.
      searched: whether it is the cell of a search, which chose the rate, or none.
    """

    population: str
    rate: float | None
    tried: Rates
    searched: bool = False


def planned_rates(grid: Mapping[str, Sequence[Any]], own: Any) -> tuple[float, ...]:
    """The learning rates of a population.

    Args:
      grid: of the population.
      own: the rate of the attack that it varies, None where it has none.
    """
    if RATE in grid:
        return tuple(sorted(set(map(float, grid[RATE]))))
    whole = any(RATE.startswith(f"{path}.") for path in grid)
    return () if whole or own is None else (float(own),)


@lru_cache(1 << 12)
def chosen(setting: str) -> Chosen:
    """Reads a cell's setting.

    Args:
      setting: of the table ``cells``.

    Raises:
      UserError: it is no JSON object.
    """
    read = parse_json(setting, "a cell's setting", _SETTING, "certify again")
    said = read if isinstance(read, dict) else {}
    rate = _number(said.get(RATE))
    if TRIED not in said:
        return Chosen("", rate, {} if rate is None else {"": (rate,)})
    tried = said[TRIED] if isinstance(said[TRIED], dict) else {}
    listed = {name: values for name, values in tried.items() if isinstance(values, list)}
    rates = {name: tuple(each for each in map(_number, values) if each is not None) for name, values in listed.items()}
    return Chosen(str(said.get(POPULATION, "")), rate, rates, searched=True)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def tried_rates(rows: Table) -> dict[str, tuple[float, ...]]:
    """All rates that some cells of one family stand for."""
    found: dict[str, set[float]] = {}
    for setting in rows["setting"].unique():
        for name, rates in chosen(setting).tried.items():
            found.setdefault(name, set()).update(rates)
    return {name: tuple(sorted(rates)) for name, rates in found.items()}


def beyond(
    records: Table, cells: Table, policy: Policy, planned: Mapping[str, Rates], held_out: Collection[str]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """The rates that a suite goes on to, once: where a verdict on resistance may change by it.

    Args:
      records, cells: of what was planned, or of more.
      policy: thresholds.
      planned: by family of the suite.
      held_out: the families that the suite holds out.

    Returns:
      By family and population the further rates, in order; families that need none are not there.
    """
    table = points(records, cells, policy, "test")
    rates = {family: {name: frozenset(each) for name, each in named.items()} for family, named in planned.items()}
    pairs = list(zip(table["setting"], table["family"], strict=True))
    among = {each: _is_planned(chosen(each[0]), rates.get(each[1], {})) for each in set(pairs)}
    table = table[np.array([among[each] for each in pairs], bool)]
    wanted: dict[str, dict[str, set[float]]] = {}
    for side, harm in policy.harm.items():
        part = table[table["side"] == side]
        mine = part[part["model"] == SUBJECT]
        theirs = part[part["model"] == REFERENCE]
        # Harm that no attack brings out of the reference is none that a defense holds back.
        if len(theirs) and not _succeeds(theirs, policy, harm.threshold):
            continue
        for family in _undecided(mine, policy, harm.threshold, planned, held_out):
            for name, rate in _further(mine[mine["family"] == family], policy, harm.threshold, planned[family]):
                wanted.setdefault(family, {}).setdefault(name, set()).add(rate)
    return {
        family: {name: tuple(sorted(rates)) for name, rates in sorted(each.items())} for family, each in wanted.items()
    }


def _is_planned(each: Chosen, rates: Mapping[str, frozenset[float]]) -> bool:
    return all(rates.get(name, frozenset()).issuperset(values) for name, values in each.tried.items())


def _succeeds(states: Table, policy: Policy, threshold: float) -> bool:
    """Whether one of some states is shown to be harmful."""
    return len(states) > 0 and worst_rate(states, policy.confidence).low > threshold


def _undecided(
    mine: Table, policy: Policy, threshold: float, planned: Mapping[str, Rates], held_out: Collection[str]
) -> list[str]:
    """The families of scopes in which the model is not shown to fail already: others can change no verdict."""
    kept = mine[mine["kept"]]
    scopes = set(planned), set(planned) & set(held_out)
    left = [each for each in scopes if not _succeeds(kept[kept["family"].isin(each)], policy, threshold)]
    return [family for family in planned if any(family in each for each in left)]


def _further(part: Table, policy: Policy, threshold: float, rates: Rates) -> list[tuple[str, float]]:
    """Populations and rates that one side of harm asks for, given all planned points of a family."""
    part = part[np.array([chosen(setting).rate is not None for setting in part["setting"]], bool)]
    kept = part[part["kept"]]
    if not len(kept):
        # All of them broke the model: an attacker would go more slowly.
        names = {chosen(setting).population for setting in part["setting"]}
        return [(name, _next(rates[name][0], 1 / FACTOR)) for name in names if name in rates]
    if _succeeds(kept, policy, threshold):
        return []
    found = [
        _outward(chosen(setting), rates.get(chosen(setting).population, ()))
        for setting in _worst(kept)["setting"].unique()
    ]
    # One of the worst that lies between others shows that going further did not do more.
    return [each for one in found for each in one] if all(found) else []


def _outward(each: Chosen, rates: Sequence[float]) -> list[tuple[str, float]]:
    """From an edge to beyond it; nothing from between the edges."""
    if not rates:
        return []
    ends = (rates[0], 1 / FACTOR), (rates[-1], FACTOR)
    return [(each.population, _next(end, by)) for end, by in ends if end == each.rate]


def _next(rate: float, factor: float) -> float:
    # As a person would write it: the same number on every machine, and in every table.
    return float(f"{rate * factor:.3g}")


def _worst(kept: Table) -> Table:
    rate = kept["harmful"] / kept["trials"]
    return kept[rate == rate.max()]


def unsettled(table: Table) -> dict[str, dict[str, str]]:
    """The families of which a stronger setting may lie beyond those that were tried, as far as the tables tell.

    Args:
      table: points, from :func:`~immunax.conditions.points.points`.

    Returns:
      By side of harm and family, why, as half a sentence.
    """
    found: dict[str, dict[str, str]] = {}
    mine = table[table["model"] == SUBJECT]
    for (side, family), part in mine.groupby(["side", "family"]):
        tried, kept = tried_rates(part), part[part["kept"]]
        why = [_edge(chosen(row["setting"]), tried, row["clipped"]) for _, row in _worst(kept).iterrows()]
        # An attacker would go more gently than all that was tried.
        why = why if len(kept) else ["every setting that was tried broke the model"]
        # One that ties with the worst and is settled shows that going further did not do more.
        if why and all(why):
            found.setdefault(str(side), {})[str(family)] = str(why[0])
    return found


def _edge(each: Chosen, tried: Rates, clipped: float) -> str | None:
    rates = tried.get(each.population, ())
    if each.searched and each.rate is None:
        return "its search found no attack that keeps the utility"
    if clipped == 1.0:
        return "clipping made every step of its worst setting smaller"
    if each.rate is None or not rates or rates[0] < each.rate < rates[-1]:
        return None
    end = "largest" if each.rate == rates[-1] else "smallest"
    return f"its worst setting has the {end if len(rates) > 1 else 'only'} learning rate that was tried"

"""The suite that goes on beyond the learning rates that it tried; see :mod:`immunax.conditions.edges`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.conditions.edges import RATE, Rates
from immunax.stages.cells import Cell, groups
from immunax.stages.suite import Suite


def wider(
    suite: Suite, role: str, templates: Sequence[str], further: Mapping[str, Rates]
) -> Iterator[tuple[Cell, ...]]:
    """The cells of a suite that go on to further learning rates, those that run together in one group.

    Args:
      suite: the suite.
      role: of the model.
      templates: that it is measured under.
      further: from :func:`~immunax.conditions.edges.beyond`.
    """
    attacks = {family: _at(suite.attacks[family], rates) for family, rates in further.items()}
    if attacks:
        more = groups(replace(suite, attacks=attacks, held_out=(), task=None), role, templates)
        yield from (group for group in more if group[0].attack is not None)


def _at(attack: Population | Search, rates: Rates) -> Population | Search:
    if isinstance(attack, Search):
        chosen = {name: _with(attack.populations[name], values) for name, values in rates.items()}
        return replace(attack, populations=chosen)
    return _with(attack, rates[""])


def _with(population: Population, rates: tuple[float, ...]) -> Population:
    return replace(population, grid={**population.grid, RATE: list(rates)})

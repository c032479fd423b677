"""Attacks a model and its reference with a suite, cell by cell, and keeps every cell that is done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from immunax.attacks.merge import Merge
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.certificate.facts import exposure
from immunax.conditions import records
from immunax.conditions.records import OWN_TEMPLATE, SPECIAL, TRAINABILITY, UNATTACKED
from immunax.models.model import Model, Params
from immunax.runtime import cache, console, memory_maps
from immunax.runtime.errors import UserError, nearest
from immunax.stages import cells
from immunax.stages.bench import Bench
from immunax.stages.cells import Cell, CellStore, Measured, in_role
from immunax.stages.measure import measure
from immunax.stages.planned import Group, Weights, planned
from immunax.stages.suite import Suite


@dataclass(frozen=True, eq=False)
class InMemory:
    """A model in memory as the source of an attack that merges with it.

    Attributes:
      weights: the model.
    """

    weights: Weights

    @property
    def params(self) -> Params:
        """Plain weights."""
        return self.weights.params

    def load(self) -> "InMemory":
        """Itself."""
        return self

    def by_content(self) -> str:
        """The digest, by which cells are told apart."""
        return self.weights.digest


class Campaign(NamedTuple):
    """What the attacks left.

    Attributes:
      measured: the tables of all cells.
      skipped: by family, why it could not be run on this model and these data.
      unmeasured: by family that was run, why it was not under the model's own template.
      templates: that the model was to be measured under.
    """

    measured: Measured
    skipped: dict[str, str]
    unmeasured: dict[str, str]
    templates: tuple[str, ...]


class _Gaps(NamedTuple):
    """What could not be measured.

    Attributes:
      skipped: by family, why.
      own: by family, why not under the model's own template; of the unattacked model, for all of them.
    """

    skipped: dict[str, str]
    own: dict[str, str]

    def hold(self, cell: Cell) -> bool:
        """Whether a cell is one of them."""
        mute = cell.template == OWN_TEMPLATE and (cell.family in self.own or UNATTACKED in self.own)
        return mute or cell.family in self.skipped

    def keep(self, cell: Cell, error: UserError) -> None:
        """Notes that a cell could not be measured.

        Raises:
          UserError: nothing can be said without it.
        """
        own = cell.template == OWN_TEMPLATE and cell.family != TRAINABILITY
        if cell.family in SPECIAL and not own:
            raise error
        (self.own if own else self.skipped)[cell.family] = str(error)
        console.note(f"skipped {cell.family}{' under the own template of the model' if own else ''}: {error}")

    def unmeasured(self, families: Collection[str]) -> dict[str, str]:
        """By family that was run, why it was not under the model's own template."""
        reasons = {family: self.own.get(family, self.own.get(UNATTACKED)) for family in families}
        return {family: why for family, why in reasons.items() if why is not None and family not in self.skipped}


def exposed(suite: Suite, against: Any, where: str, known: Collection[str] | None = None) -> dict[str, str]:
    """Whether a model was trained against each family of attacks of a suite.

    Args:
      suite: gives the families.
      against: names of the families that the model was trained against; None where nobody knows.
      where: who says so, as messages have it.
      known: names that there are beside the suite's; None where any may be.

    Raises:
      UserError: it is no list of names, or a name is none.
    """
    families = {
        name: tuple(attack.populations) if isinstance(attack, Search) else () for name, attack in suite.attacks.items()
    }
    if against is None:
        return exposure(families, None)
    if not isinstance(against, (list, tuple)) or not all(isinstance(name, str) for name in against):
        raise UserError(f"{where}={against!r}: expected a list of families of attacks, such as [harmful_sft], or null.")
    choices = sorted({*(known or against), *families, *chain(*families.values())})
    for name in against:
        # A misspelt name would make the family that was meant a held-out one.
        if name not in choices:
            raise UserError(f"{where}: no attack {name!r}.{nearest(name, choices)} There are: {', '.join(choices)}.")
    return exposure(families, against)


def run_suite(
    shared: Bench, model: Model, models: Mapping[str, Weights], store: CellStore, undefended: Weights | None = None
) -> Campaign:
    """Runs every cell that is not done yet.

    Args:
      shared: the suite on encoded data.
      model: static.
      models: weights of ``subject`` and, where there is one, of ``reference``.
      store: where cells are kept.
      undefended: the model before its guard, for attacks that need it.

    Returns:
      :class:`Campaign`. A family of which the data or the model do not allow every cell is skipped whole, and said to be; where
      only the model's own template is in the way, under that one alone.

    Raises:
      UserError: the model cannot be measured even as it is.
    """
    gaps = _Gaps({}, {UNATTACKED: shared.faults[OWN_TEMPLATE]} if shared.faults else {})
    suite = with_undefended(shared.suite, undefended)
    groups = planned(shared, suite, model, models)
    every = [(cell, group.identity) for group in groups for cell in group.cells]
    store.tell_others(every)
    with console.progress("certify", len(every), "cell") as bar:
        for group in groups:
            # A group that was cut short is measured whole: fewer members would be another program, and round otherwise.
            if not gaps.hold(group.first) and not all(store.holds(cell, group.identity) for cell in group.cells):
                _run(shared, model, group, store, gaps)
            bar.advance(len(group.cells))
            memory_maps.release_if_crowded()
    measured = store.all([each for each in every if not gaps.hold(each[0])])
    silent = [cell for cell, _ in every if cell.family == UNATTACKED and gaps.hold(cell)]
    return Campaign(with_silent(measured, silent), gaps.skipped, gaps.unmeasured(suite.attacks), shared.templates)


def with_silent(measured: Measured, silent: Sequence[Cell]) -> Measured:
    """Tables with a row for each cell that could not be measured, so that they tell which templates there are."""
    rows = records.frame([cell.state(0, 0, 0.0, False) for cell in silent], records.CELLS)
    return measured._replace(cells=pd.concat([rows, measured.cells], ignore_index=True)) if silent else measured


def _run(shared: Bench, model: Model, group: Group, store: CellStore, gaps: _Gaps) -> None:
    try:
        found = _measured(shared, model, group)
    except UserError as error:
        gaps.keep(group.first, error)
        return
    for cell, measured in zip(group.cells, found, strict=True):
        if not store.holds(cell, group.identity):
            store.put(cell, group.identity, in_role(measured, cell))


def _measured(shared: Bench, model: Model, group: Group) -> list[Measured]:
    """Measures cells, or takes them from the cache: models share a reference, and a reference may be certified itself."""
    paths = [str(place) for place in range(len(group.cells))]

    def write(found: list[Measured], folder: Path) -> None:
        for measured, path in zip(found, paths, strict=True):
            cells.write(measured, folder / path)

    def read(folder: Path) -> list[Measured]:
        return [cells.read(folder / path) for path in paths]

    def make() -> list[Measured]:
        return measure(shared, model, group.weights.params, group.cells)

    return cache.get_or_make("cells", group.key, make, read, write, group.code)


def with_undefended(suite: Suite, undefended: Weights | None) -> Suite:
    """The suite with the model before its guard in the attacks that merge with it and name no other."""
    if undefended is None:
        return suite
    source = InMemory(undefended)
    changed = {
        family: replace(each, attack=replace(each.attack, source=source))
        if isinstance(each, Population) and isinstance(each.attack, Merge) and each.attack.source is None
        else each
        for family, each in suite.attacks.items()
    }
    return replace(suite, attacks=changed)

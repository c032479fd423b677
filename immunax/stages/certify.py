"""Attacks a model and its reference with a suite, cell by cell, and keeps every cell that is done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from immunax.attacks.merge import Merge
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.conditions import records
from immunax.conditions.edges import beyond
from immunax.conditions.exposure import Exposure, exposures
from immunax.conditions.policy import Policy
from immunax.conditions.records import OWN_TEMPLATE, REFERENCE, SPECIAL, SUBJECT, TRAINABILITY, UNATTACKED
from immunax.models.model import Model, Params
from immunax.runtime import cache, console, goodput, memory_maps
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.leader import is_leader
from immunax.runtime.together import agreed, check_same_end
from immunax.stages import cells
from immunax.stages.bench import Bench
from immunax.stages.cells import Cell, CellStore, Measured, State, groups, in_role
from immunax.stages.measure import measure
from immunax.stages.planned import Group, Weights, named_by_content
from immunax.stages.suite import Suite
from immunax.stages.widening import wider


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
        asked = cell.template == OWN_TEMPLATE and cell.family != TRAINABILITY
        return cell.family in self.skipped or (asked and (cell.family in self.own or UNATTACKED in self.own))

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


def exposed(suite: Suite, against: Any, where: str, known: Collection[str] | None = None) -> dict[str, Exposure]:
    """How each family of a suite stands to a model.

    Args:
      suite: gives the families, and those that are held out.
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
        return exposures(families, suite.held_out, None)
    if not isinstance(against, (list, tuple)) or not all(isinstance(name, str) for name in against):
        raise UserError(f"{where}={against!r}: expected a list of families of attacks, such as [harmful_sft], or null.")
    choices = sorted({*(known or against), *families, *chain(*families.values())})
    for name in against:
        # A misspelt name would make the family that was meant one that the model never saw.
        if name not in choices:
            raise UserError(f"{where}: no attack {name!r}.{nearest(name, choices)} There are: {', '.join(choices)}.")
    return exposures(families, suite.held_out, against)


def run_suite(
    shared: Bench,
    model: Model,
    models: Mapping[str, Weights],
    store: CellStore,
    policy: Policy,
    undefended: Weights | None = None,
) -> Campaign:
    """Runs every cell that is not done yet, and those beyond the learning rates of the suite that its tables ask for.

    Args:
      shared: the suite on encoded data.
      model: static.
      models: weights of ``subject`` and, where there is one, of ``reference``.
      store: where cells are kept.
      policy: thresholds, by which a suite goes on to further learning rates.
      undefended: the model before its guard, for attacks that need it.

    Returns:
      :class:`Campaign`. A family of which the data or the model do not allow every cell is skipped whole, and said to be; where
      only the model's own template is in the way, under that one alone.

    Raises:
      UserError: the model cannot be measured even as it is.
    """
    gaps = _Gaps({}, {UNATTACKED: shared.faults[OWN_TEMPLATE]} if shared.faults else {})
    suite = with_undefended(shared.suite, undefended)
    roles = [role for role in (SUBJECT, REFERENCE) if role in models]

    def run(planned: Sequence[tuple[Cell, ...]]) -> list[tuple[Cell, str]]:
        named = named_by_content(shared, suite, model, models, planned)
        _run_all(shared, model, named, store, gaps)
        return [(cell, group.identity) for group in named for cell in group.cells]

    every = run([group for role in roles for group in groups(suite, role, shared.templates, tuple(shared.voices))])
    measured = store.all([each for each in every if not gaps.hold(each[0])])
    further = beyond(*measured, policy, suite.rates(), suite.held_out)
    every += run([group for role in roles for group in wider(suite, role, shared.templates, further)])
    measured = store.all([each for each in every if not gaps.hold(each[0])])
    silent = [cell for cell, _ in every if cell.family == UNATTACKED and gaps.hold(cell)]
    return Campaign(with_silent(measured, silent), gaps.skipped, gaps.unmeasured(suite.attacks), shared.templates)


def _run_all(shared: Bench, model: Model, planned: Sequence[Group], store: CellStore, gaps: _Gaps) -> None:
    store.tell_others([(cell, group.identity) for group in planned for cell in group.cells])
    with console.progress("certify", sum(len(group.cells) for group in planned), "cell") as bar:
        for group in planned:
            # A group that was cut short is measured whole: fewer members would be another program, and round otherwise.
            held = partial(store.holds_all, [(cell, group.identity) for cell in group.cells])
            if not gaps.hold(group.first) and not agreed(held):
                _run(shared, model, group, store, gaps)
                goodput.keep()
            bar.advance(len(group.cells))
            memory_maps.release_if_crowded()


def with_silent(measured: Measured, silent: Sequence[Cell]) -> Measured:
    """Tables with a row for each cell that could not be measured, so that they tell which templates there are."""
    rows = records.frame([cell.state(State(0, 0, 0.0, False)) for cell in silent], records.CELLS)
    return measured._replace(cells=pd.concat([rows, measured.cells], ignore_index=True)) if silent else measured


def _run(shared: Bench, model: Model, group: Group, store: CellStore, gaps: _Gaps) -> None:
    found: list[Measured] = []
    failed = None
    try:
        found = _measured(shared, model, group)
    except UserError as error:
        failed = error
    check_same_end(group.first.family, int(failed is not None))
    if failed is not None:
        gaps.keep(group.first, failed)
        return
    if is_leader():
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
        with goodput.spending("attack"):
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

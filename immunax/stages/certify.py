"""Attacks a model and its reference with a suite, cell by cell, and keeps every cell that is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from immunax.attacks.grid import Population
from immunax.attacks.merge import Merge
from immunax.attacks.search import Search
from immunax.conditions.records import REFERENCE, SUBJECT
from immunax.models.model import Model, Params
from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.stages.cells import Cell, Measured, Store, groups
from immunax.stages.measure import Bench, measure
from immunax.stages.suite import Suite

UNKNOWN, SEEN, HELD_OUT = "unknown", "seen", "held-out"


@dataclass(frozen=True, eq=False)
class _Given:
    params: Params

    def load(self) -> "_Given":
        return self


class Campaign(NamedTuple):
    """What the attacks left.

    Attributes:
      measured: the tables of all cells.
      skipped: by family, why it could not be run on this model and these data.
    """

    measured: Measured
    skipped: dict[str, str]


def exposure(suite: Suite, against: Sequence[str] | None) -> dict[str, str]:
    """Whether a model was trained against each family of attacks.

    A search is held out where none of the attacks that it tunes is known to the model.

    Args:
      suite: gives the families.
      against: families that the model was trained against; None where nobody knows.
    """

    def of(family: str, attack: Population | Search) -> str:
        if against is None:
            return UNKNOWN
        names = {family, *(attack.populations if isinstance(attack, Search) else ())}
        return SEEN if names & set(against) else HELD_OUT

    return {family: of(family, attack) for family, attack in suite.attacks.items()}


def run_suite(
    shared: Bench, model: Model, models: Mapping[str, Params], store: Store, undefended: Params | None = None
) -> Campaign:
    """Runs every cell that is not done yet.

    Args:
      shared: the suite on encoded data.
      model: static.
      models: plain weights of ``subject`` and, where there is one, of ``reference``.
      store: where cells are kept.
      undefended: the model before its guard, for attacks that need it.

    Returns:
      :class:`Campaign`. A family that the data or the model do not allow is skipped, and said to be.

    Raises:
      UserError: the model cannot be measured even as it is.
    """
    skipped: dict[str, str] = {}
    suite = with_undefended(shared.suite, undefended)
    planned = [group for role in (SUBJECT, REFERENCE) if role in models for group in groups(suite, role)]
    with console.progress("certify", sum(map(len, planned)), "cell") as bar:
        for group in planned:
            todo = [cell for cell in group if not store.holds(cell)]
            first = group[0]
            if todo and first.family not in skipped:
                _run(shared, model, models[first.model], todo, store, skipped)
            bar.advance(len(group))
    return Campaign(store.all([cell for group in planned for cell in group]), skipped)


def _run(
    shared: Bench, model: Model, params: Params, todo: Sequence[Cell], store: Store, skipped: dict[str, str]
) -> None:
    try:
        found = measure(shared, model, params, todo)
    except UserError as error:
        if todo[0].attack is None:
            raise
        skipped[todo[0].family] = str(error)
        console.note(f"skipped {todo[0].family}: {error}")
        return
    for cell, measured in zip(todo, found, strict=True):
        store.put(cell, measured)


def with_undefended(suite: Suite, undefended: Params | None) -> Suite:
    """The suite with the model before its guard in the attacks that merge with it and name no other."""
    if undefended is None:
        return suite
    source = _Given(undefended)
    changed = {
        family: replace(each, attack=replace(each.attack, source=source))
        if isinstance(each, Population) and isinstance(each.attack, Merge) and each.attack.source is None
        else each
        for family, each in suite.attacks.items()
    }
    return replace(suite, attacks=changed)

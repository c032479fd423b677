"""Attacks a model and its reference with a suite, cell by cell, and keeps every cell that is done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from immunax.attacks.merge import Merge
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.conditions.edges import beyond
from immunax.conditions.exposure import Exposure, exposures
from immunax.conditions.policy import Policy
from immunax.conditions.records import REFERENCE, SUBJECT
from immunax.models.model import Model, Params
from immunax.runtime import cache, console, digest, manifest, memory_maps
from immunax.runtime.errors import UserError, nearest
from immunax.stages import cells
from immunax.stages.bench import Bench
from immunax.stages.cells import Cell, CellStore, Measured, groups, in_role
from immunax.stages.measure import measure
from immunax.stages.suite import Suite
from immunax.stages.widening import wider


class Weights(NamedTuple):
    """Plain weights, and their SHA-256 by :func:`~immunax.runtime.digest.of_tree`."""

    params: Params
    digest: str


@dataclass(frozen=True, eq=False)
class InMemory:
    """A model in memory as the source of an attack that merges with it; its text is the digest, as cells are told apart by it.

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

    def __repr__(self) -> str:
        return f"InMemory({self.weights.digest})"


class Campaign(NamedTuple):
    """What the attacks left.

    Attributes:
      measured: the tables of all cells.
      skipped: by family, why it could not be run on this model and these data.
    """

    measured: Measured
    skipped: dict[str, str]


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
      :class:`Campaign`. A family of which the data or the model do not allow every cell is skipped whole, and said to be.

    Raises:
      UserError: the model cannot be measured even as it is.
    """
    skipped: dict[str, str] = {}
    suite = with_undefended(shared.suite, undefended)
    roles = [role for role in (SUBJECT, REFERENCE) if role in models]

    def run(planned: Sequence[Sequence[Cell]]) -> list[Cell]:
        _run_all(shared, model, models, planned, store, skipped)
        return [cell for group in planned for cell in group]

    cells = run([group for role in roles for group in groups(suite, role)])
    measured = store.all([cell for cell in cells if cell.family not in skipped])
    further = beyond(*measured, policy, suite.rates(), suite.held_out)
    cells += run([group for role in roles for group in wider(suite, role, further)])
    return Campaign(store.all([cell for cell in cells if cell.family not in skipped]), skipped)


def _run_all(
    shared: Bench,
    model: Model,
    models: Mapping[str, Weights],
    planned: Sequence[Sequence[Cell]],
    store: CellStore,
    skipped: dict[str, str],
) -> None:
    with console.progress("certify", sum(map(len, planned)), "cell") as bar:
        for group in planned:
            first = group[0]
            # A group that was cut short is measured whole: fewer members would be another program, and round otherwise.
            if first.family not in skipped and not all(map(store.holds, group)):
                _run(shared, model, models[first.model], group, store, skipped)
            bar.advance(len(group))
            memory_maps.release_if_crowded()


def _run(
    shared: Bench, model: Model, weights: Weights, group: Sequence[Cell], store: CellStore, skipped: dict[str, str]
) -> None:
    try:
        found = _measured(shared, model, weights, group)
    except UserError as error:
        if group[0].attack is None:
            raise
        skipped[group[0].family] = str(error)
        console.note(f"skipped {group[0].family}: {error}")
        return
    for cell, measured in zip(group, found, strict=True):
        if not store.holds(cell):
            store.put(cell, in_role(measured, cell))


def _measured(shared: Bench, model: Model, weights: Weights, group: Sequence[Cell]) -> list[Measured]:
    """Measures cells, or takes them from the cache: models share a reference, and a reference may be certified itself."""
    suite = shared.suite
    key = {
        "weights": weights.digest,
        "cells": [(cell.family, dict(cell.setting), cell.seed, repr(cell.attack)) for cell in group],
        "suite": (
            suite.measured,
            suite.transfer_prompts,
            suite.harmless_prompts,
            digest.of_json([asdict(each) for each in shared.harmless]),
            repr(suite.choices),
            repr(suite.task),
        ),
        "exam": (repr(shared.evaluation), shared.seed, digest.of_json(asdict(shared.splits))),
        "speech": shared.speech,
        "model": repr(model),
        "versions": manifest.versions(),
    }
    paths = [str(place) for place in range(len(group))]

    def write(found: list[Measured], folder: Path) -> None:
        for measured, path in zip(found, paths, strict=True):
            cells.write(measured, folder / path)

    def read(folder: Path) -> list[Measured]:
        return [cells.read(folder / path) for path in paths]

    def make() -> list[Measured]:
        return measure(shared, model, weights.params, group)

    code = [measure, suite.task, suite.choices, shared.evaluation, *(cell.attack for cell in group)]
    return cache.get_or_make("cells", key, make, read, write, code)


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

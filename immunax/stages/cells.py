"""The cells of a certificate: one attack, with one setting and one seed, on one model; each kept on disk when it is done."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from immunax.attacks.attack import FineTuning
from immunax.campaign.grid import SEED, Population
from immunax.campaign.search import Search
from immunax.conditions import records
from immunax.conditions.edges import RATE, TRIED
from immunax.conditions.records import NEUTRAL, TRAINABILITY, UNATTACKED, Table
from immunax.runtime import console, digest, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.places import without_places
from immunax.runtime.together import barrier
from immunax.stages.suite import Suite, rates_of

_RECORDS, _CELLS = ".records.parquet", ".cells.parquet"


class State(NamedTuple):
    """A model at one point of an attack.

    Attributes:
      step, samples, flops, diverged, clipped: columns of :data:`~immunax.conditions.records.CELLS`.
      found: what the attack chose for itself, which is told in its setting.
    """

    step: int
    samples: int
    flops: float
    diverged: bool = False
    clipped: float = 0.0
    found: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Cell:
    """One attack on one model.

    Attributes:
      model: ``subject`` or ``reference``.
      family: of the attack.
      setting: what sets it apart within the family, JSON-able.
      seed: of data and random keys.
      attack: the attack itself, a search, or None for none.
      template: that the model is attacked and asked under, ``own`` or ``neutral``.
    """

    model: str
    family: str
    setting: Mapping[str, Any]
    seed: int
    attack: Any
    template: str

    @property
    def name(self) -> str:
        """Of its files, and in the tables."""
        end = f"-{NEUTRAL}" if self.template == NEUTRAL else ""
        return f"{self.model}-{self.family}-{digest.of_json(self.setting)[:8]}-{self.seed}{end}"

    def state(self, state: State) -> tuple:
        """A row of the table ``cells``."""
        setting = json.dumps({**self.setting, **state.found}, sort_keys=True)
        spent = state.step, state.samples, float(state.flops), state.diverged, state.clipped
        return self.name, self.model, self.family, setting, self.seed, self.template, *spent


class Measured(NamedTuple):
    """What was measured of some cells: the two tables of :mod:`immunax.conditions.records`."""

    records: Table
    cells: Table


def groups(
    suite: Suite, model: str, templates: Sequence[str], spoken: Sequence[str] | None = None
) -> Iterator[tuple[Cell, ...]]:
    """The cells of one model, those that run together in one group.

    Args:
      suite: the suite.
      model: ``subject`` or ``reference``.
      templates: that the model is measured under, its own one first, under which the task is learned, as a user would. Attacks
        begin with the neutral one: what cannot be run there is not run at all.
      spoken: of them, those that the model can be asked under at all; None for all.
    """
    for template in templates:
        yield (Cell(model, UNATTACKED, {}, 0, None, template),)
    if suite.task is not None:
        for seed in suite.task.seeds:
            yield (Cell(model, TRAINABILITY, {}, seed, None, (templates if spoken is None else spoken)[0]),)
    for family, population in suite.attacks.items():
        for template in reversed(templates):
            cells = _attacks(model, family, population, template)
            for start in range(0, len(cells), suite.together):
                yield tuple(cells[start : start + suite.together])


def _attacks(model: str, family: str, population: Population | Search, template: str) -> list[Cell]:
    if isinstance(population, Search):
        tried = {name: list(rates) for name, rates in rates_of(population).items()}
        setting = {"members": len(population.members()), TRIED: tried}
        return [Cell(model, family, setting, 0, population, template)]
    cells = [
        Cell(model, family, _plain(settings) | _rate(attack), int(settings[SEED]), attack, template)
        for settings, attack in zip(population.settings(), population.members(), strict=True)
    ]
    if len({cell.name for cell in cells}) < len(cells):
        raise UserError(
            f"suite.attacks.{family}: two settings of its grid would be told alike, as a certificate holds the last part of "
            "a path alone; give the files names of their own."
        )
    return cells


def _rate(attack: Any) -> dict[str, float]:
    """The learning rate stands in the setting of a fine-tuning though it may be the only one."""
    return {RATE: float(attack.tuning.optimizer.learning_rate)} if isinstance(attack, FineTuning) else {}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return without_places({path: _jsonable(value) for path, value in settings.items() if path != SEED})


def _jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value)}
    return [_jsonable(each) for each in value] if isinstance(value, (list, tuple)) else value


def in_role(measured: Measured, cell: Cell) -> Measured:
    """The same measurements as those of a cell that differs by the role of its model alone."""
    return Measured(measured.records.assign(cell=cell.name), measured.cells.assign(cell=cell.name, model=cell.model))


def write(measured: Measured, path: Path) -> None:
    """Writes both tables beside one another; the second file appears last, and says that they are whole."""
    records.write(path.with_name(path.name + _RECORDS), measured.records)
    records.write(path.with_name(path.name + _CELLS), measured.cells)


def read(path: Path) -> Measured:
    """Reads what :func:`write` wrote.

    Raises:
      UserError: a file cannot be read.
    """
    return Measured(
        records.read(path.with_name(path.name + _RECORDS), records.RECORDS),
        records.read(path.with_name(path.name + _CELLS), records.CELLS),
    )


class CellStore:
    """A folder with the measurements of every cell that is done, each under the name of all that its numbers come from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, cell: Cell, identity: str) -> bool:
        """Whether a cell is done.

        Args:
          cell: which.
          identity: SHA-256 of what its numbers come from.
        """
        return self._path(cell, identity, _CELLS).exists()

    def holds_all(self, cells: Iterable[tuple[Cell, str]]) -> bool:
        """Whether every one of some cells with their identities is done."""
        return all(self.holds(*each) for each in cells)

    def put(self, cell: Cell, identity: str, measured: Measured) -> None:
        """Keeps a cell; arguments as of :meth:`holds`."""
        write(measured, self._path(cell, identity, ""))

    def all(self, cells: Iterable[tuple[Cell, str]]) -> Measured:
        """The tables of many cells with their identities, in the order given, those that are not done left out.

        Raises:
          UserError: a file cannot be read.
        """
        barrier()  # behind what the leader wrote
        mirror.fetch(self._folder)
        tables = [read(self._path(*each, "")) for each in cells if self.holds(*each)]
        return Measured(*(pd.concat(each, ignore_index=True) for each in zip(*tables, strict=True)))

    def tell_others(self, cells: Iterable[tuple[Cell, str]]) -> None:
        """Says in one line that cells of these names are there that were measured of something else."""
        others = [cell for cell, identity in cells if not self.holds(cell, identity) and self._any(cell)]
        if others:
            console.note(
                f"{self._folder} holds {len(others)} cells of other weights, tokenizers, data, judges or code, such as "
                f"{others[0].name}: measured anew"
            )

    def _any(self, cell: Cell) -> bool:
        return any(self._folder.glob(f"{cell.name}.*{_CELLS}"))

    def _path(self, cell: Cell, identity: str, end: str) -> Path:
        return self._folder / f"{cell.name}.{identity[:16]}{end}"

"""Rows of many runs with the columns of all: types, and which columns tell runs apart."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from immunax.runs.flatten import ENDS, Value
from immunax.runtime.errors import UserError, nearest

_INTEGERS = range(-(1 << 63), 1 << 63)
_SEED = "seed"
_PREFIXES = ("choices", "config", "results", "metrics")
"""What a name is taken to stand below, in this order, where it is no column's whole name."""
_SHOWN_CHOICES = 4
_NUMBERS = ("BOOLEAN", "BIGINT", "DOUBLE")


COLUMN = "column"
"""What a row is called that is a column of others."""


class UnknownColumnError(UserError):
    """A name that no column has, or several."""


class Column(NamedTuple):
    """A column with one type.

    Attributes:
      name: its name.
      type: DuckDB's, of every value that is not None.
      values: one a row.
    """

    name: str
    type: str
    values: list[Any]

    @property
    def has_mean(self) -> bool:
        """Whether it holds numbers, or nothing."""
        return self.type in _NUMBERS or all(value is None for value in self.values)


class Row(NamedTuple):
    """Values by column.

    Attributes:
      own: of this row.
      run: of the run that it is of, which are one object for all of its rows; none where the row is the run.
    """

    own: Mapping[str, Value]
    run: Mapping[str, Value] = MappingProxyType({})

    def get(self, name: str) -> Value:
        """The value in a column, the row's own first; None where there is none."""
        return self.own[name] if name in self.own else self.run.get(name)


@dataclass(frozen=True)
class Frame:
    """Rows, which need not all have the same columns.

    Attributes:
      rows: of all.
      what: the noun for one.
    """

    rows: Sequence[Row]
    what: str = "run"

    @cached_property
    def names(self) -> dict[str, int]:
        """Every column with its number, in the order in which rows have them."""
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row.own))
        for run in {id(row.run): row.run for row in self.rows}.values():
            names.update(dict.fromkeys(run))
        return {name: number for number, name in enumerate(names)}

    def column(self, name: str) -> Column:
        """One column.

        Args:
          name: of :attr:`names`.
        """
        return typed(name, [row.get(name) for row in self.rows])

    def ends(self, name: str) -> tuple[str, ...]:
        """The columns of an interval beside a column; none where it has none, or where one of the three holds no numbers."""
        found = tuple(f"{name}.{end}" for end in ENDS)
        there = all(each in self.names for each in found)
        return found if there and all(self.column(each).has_mean for each in (name, *found)) else ()

    def resolve(self, name: str) -> str:
        """The column that a user means.

        Args:
          name: its whole name; or without ``choices``, ``config``, ``results`` or ``metrics`` before it; or the end of it from a
            point on, where no other ends so, or no other differs between rows.

        Raises:
          UnknownColumnError: it is none, or several.
        """
        for whole in (name, *(f"{prefix}.{name}" for prefix in _PREFIXES)):
            if whole in self.names:
                return whole
        found = [each for each in self.names if each.endswith(f".{name}")]
        differ = [each for each in found if self.differs(each)] if len(found) > 1 else found
        if len(differ) == 1:
            return differ[0]
        if found:
            some = ", ".join(found[:_SHOWN_CHOICES]) + (", ..." if len(found) > _SHOWN_CHOICES else "")
            raise UnknownColumnError(
                f"{name}: {len(found)} columns end so ({some}); write more of the one that is meant."
            )
        known = [*self.names, *(_without(each, _PREFIXES) for each in self.names)]
        ends = {each.rpartition(".")[2]: each for each in reversed(self.names)}
        hint = nearest(name, known) or nearest(name.rpartition(".")[2], ends)
        raise UnknownColumnError(f"no column {name!r}.{hint} All of them: table=columns.")

    def differs(self, name: str) -> bool:
        """Whether a column has several values; one that a row lacks is one."""
        return len({row.get(name) for row in self.rows}) > 1

    def telling_apart(self) -> list[str]:
        """The fewest columns of the configuration by which rows differ: none that follows from those before it.

        What a row lacks is not known of it: a run that failed at once has no more than it was asked for.

        Returns:
          What was chosen of groups first, then fields, the seed last.
        """
        known = [row for row in self.rows if any(name.startswith("config.") for name in row.own)]
        # A name of one row alone tells nothing apart, and strangers may have any number of them.
        counts = Counter(name for row in known for name in row.own)
        shared = [name for name in self.names if counts[name] > 1]
        choices = [name for name in shared if name.startswith("choices.")]
        fields = [name for name in shared if name.startswith("config.") and name not in _PLACES]
        found, parts, count = [], [0] * len(known), min(1, len(known))
        for name in ("command", *choices, _SEED, *fields):
            if len({row.own[name] for row in known if name in row.own}) < 2:
                continue
            finer: dict[tuple[int, Value], int] = {}
            refined = [
                finer.setdefault((part, row.get(name)), len(finer)) for part, row in zip(parts, known, strict=True)
            ]
            if len(finer) > count:
                found.append(name)
                parts, count = refined, len(finer)
        return sorted(found, key=lambda name: name == _SEED)


_PLACES = ("config.run", "config.outputs")
"""Where a run lies, which is no part of what it is."""


def short(name: str) -> str:
    """A column's name without what every name of its kind begins with."""
    return _without(name, _PREFIXES[:2])


def _without(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(f"{prefix}.")
    return name


def typed(name: str, values: Sequence[Value]) -> Column:
    """A column of the type that all its values have; of text where they have none in common."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return Column(name, "BOOLEAN", list(values))
    if kinds and kinds <= {int, float}:
        whole = kinds == {int} and all(value is None or value in _INTEGERS for value in values)
        return Column(
            name, "BIGINT" if whole else "DOUBLE", list(values) if whole else [_float(each) for each in values]
        )
    if kinds == {datetime}:
        return Column(name, "TIMESTAMP", list(values))
    return Column(name, "VARCHAR", [None if value is None else _text(value) for value in values])


def columns_of(frame: Frame) -> Frame:
    """A frame of columns in the place of rows: what there is to ask for.

    Args:
      frame: of runs.
    """
    values: dict[str, list[Value]] = {name: [] for name in frame.names}
    for row in frame.rows:
        for name, value in row.own.items():
            if value is not None:
                values[name].append(value)
    return Frame([Row(_about(typed(name, each))) for name, each in values.items()], COLUMN)


def _about(column: Column) -> dict[str, Value]:
    return {
        "name": column.name,
        "type": column.type.lower() if column.values else "empty",
        "rows": len(column.values),
        "distinct": len(set(column.values)),
        "example": _text(column.values[0]) if column.values else None,
    }


def _float(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.isoformat(" ") if isinstance(value, datetime) else json.dumps(value)

"""Questions to a frame: DuckDB in memory, which sees the columns that a question names, and neither files nor the network.

A condition is the user's own SQL, with the names of columns as :meth:`~immunax.runs.frame.Frame.resolve` takes them: it is
parsed by DuckDB, the names are put in its tree, and the tree is made text again. What runs say, values and names of columns, is
never part of a text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb

from immunax.runs.flatten import plain
from immunax.runs.frame import Column, Frame, Row, UnknownColumnError
from immunax.runtime.errors import UserError

_TABLE = "runs"
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
    "threads": 1,  # rows stay in their order
}


class Condition(NamedTuple):
    """Which rows count.

    Attributes:
      sql: an expression; its columns by number.
      names: that it asks of.
      text: as the user wrote it; None where he did not.
    """

    sql: str
    names: tuple[str, ...]
    text: str | None


EVERY = Condition("true", (), None)


@dataclass(frozen=True)
class Query:
    """Questions to one frame.

    Attributes:
      frame: the rows.
    """

    frame: Frame
    _connection: duckdb.DuckDBPyConnection = field(default_factory=lambda: _locked(), repr=False)
    _loaded: dict[str, Column] = field(default_factory=dict, repr=False)

    def where(self, text: str) -> Condition:
        """A condition of the user's.

        Args:
          text: SQL, as stands behind WHERE.

        Raises:
          UserError: it is no condition.
          UnknownColumnError: it names a column that there is not.
        """
        return self._expression(text, "where")

    def computed(self, name: str, text: str) -> list[Any]:
        """What an expression of the user's gives for each row, in their order.

        Args:
          name: of the new column, for messages.
          text: SQL, as stands behind SELECT; of one row, such as ``step / steps``.

        Raises:
          UserError: it is no expression, or cannot be computed.
          UnknownColumnError: it names a column that there is not.
        """
        found = self._expression(text, name)
        self._load(found.names or tuple(self.frame.names)[:1])
        rows = self._ask(text, f"SELECT {found.sql} FROM {_TABLE}")
        return [float(value) if isinstance(value, Decimal) else value for (value,) in rows]

    def _expression(self, text: str, what: str) -> Condition:
        # A line of its own: a comment at its end comments nothing of ours out.
        tree = self._ask(text, "SELECT json_serialize_sql(?)", [f"SELECT 1 FROM {_TABLE} WHERE (\n{text}\n)"])[0][0]
        parsed = json.loads(tree)
        if parsed.get("error"):
            raise UserError(f"{what}={text!r}: {parsed.get('error_message')}; write it as SQL behind WHERE.")
        names: dict[str, None] = {}
        for node in _references(parsed):
            said = ".".join(node["column_names"])
            try:
                name = self.frame.resolve(said)
            except UnknownColumnError as error:
                raise UnknownColumnError(
                    f"{what}={text!r}: {error} A text stands in single quotes, as 'tar'."
                ) from error
            names[name] = None
            node["column_names"] = [self._column(name)]
        whole = self._ask(text, "SELECT json_deserialize_sql(?::JSON)", [json.dumps(parsed)])[0][0]
        return Condition(f"({whole.partition(' WHERE ')[2]})", tuple(names), text)

    def rows(
        self,
        names: Sequence[str],
        condition: Condition = EVERY,
        sort: tuple[str, bool] | None = None,
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """Values of rows.

        Args:
          names: of columns.
          condition: which rows.
          sort: a column, and whether the largest come first; rows that lack it come last. None keeps their order.
          limit: the most rows.

        Raises:
          UserError: the condition cannot be computed.
        """
        order = "" if sort is None else f"ORDER BY {self._column(sort[0])} {'DESC' if sort[1] else 'ASC'} NULLS LAST"
        most = "" if limit is None else f"LIMIT {int(limit)}"
        self._load((*names, *((sort[0],) if sort else ()), *condition.names))
        what = ", ".join(self._column(name) for name in names)
        return self._ask(condition.text, f"SELECT {what} FROM {_TABLE} WHERE {condition.sql} {order} {most}")

    def groups(
        self, keys: Sequence[str], names: Sequence[str], condition: Condition = EVERY
    ) -> list[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
        """Rows by the values of some columns, in their order.

        Args:
          keys: the columns; without any there is one group.
          names: of columns whose values are given.
          condition: which rows.

        Returns:
          ``(values of the keys, [values of a row])`` each.

        Raises:
          UserError: the condition cannot be computed.
        """
        self._load((*keys, *names, *condition.names))
        key = ", ".join(self._column(name) for name in keys)
        row = ", ".join(self._column(name) for name in names)
        by = f"GROUP BY {key} ORDER BY {', '.join(f'{self._column(name)} NULLS LAST' for name in keys)}" if keys else ""
        what = f"{f'{key}, ' if key else ''}list(row({row}))"
        found = self._ask(condition.text, f"SELECT {what} FROM {_TABLE} WHERE {condition.sql} {by}")
        return [(each[:-1], [tuple(row) for row in each[-1] or ()]) for each in found]

    def counts(self, name: str, condition: Condition = EVERY, known: str | None = None) -> dict[Any, int]:
        """How many rows have each value of a column, in the order of the values.

        Args:
          name: of the column.
          condition: which rows.
          known: of another column, in which rows have to have a value; None for none.

        Raises:
          UserError: the condition cannot be computed.
        """
        self._load((name, *(() if known is None else (known,)), *condition.names))
        column, there = self._column(name), "" if known is None else f"AND {self._column(known)} IS NOT NULL"
        by = f"GROUP BY {column} ORDER BY {column} NULLS LAST"
        sql = f"SELECT {column}, count(*) FROM {_TABLE} WHERE {condition.sql} {there} {by}"
        return dict(self._ask(condition.text, sql))

    def varying(self, keys: Sequence[str], names: Sequence[str], condition: Condition = EVERY) -> list[str]:
        """Which columns have several values within a group; none at all is one.

        Args:
          keys: the columns that make groups.
          names: the columns that are asked of.
          condition: which rows.

        Raises:
          UserError: the condition cannot be computed.
        """
        if not names:
            return []
        self._load((*keys, *names, *condition.names))
        columns = [self._column(name) for name in names]
        within = ", ".join(f"count(DISTINCT {each}) + max(({each} IS NULL)::INT) AS {each}" for each in columns)
        by = f"GROUP BY {', '.join(map(self._column, keys))}" if keys else ""
        groups = f"SELECT {within} FROM {_TABLE} WHERE {condition.sql} {by}"
        (most,) = self._ask(condition.text, f"SELECT {', '.join(f'max({each})' for each in columns)} FROM ({groups})")
        return [name for name, count in zip(names, most, strict=True) if (count or 0) > 1]

    def _column(self, name: str) -> str:
        # By number: names of strangers differ in the case of a letter, which SQL's may not.
        return f"c{self.frame.names[name]}"

    def _load(self, names: Sequence[str]) -> None:
        new = {name: self.frame.column(name) for name in names if name not in self._loaded}
        if not new:
            return
        what = ", ".join(f"unnest(?::{each.type}[]) AS {self._column(name)}" for name, each in new.items())
        known = f"{_TABLE} POSITIONAL JOIN" if self._loaded else ""
        sql = f"CREATE OR REPLACE TABLE {_TABLE} AS SELECT * FROM {known} (SELECT {what})"
        self._connection.execute(sql, [each.values for each in new.values()])
        self._loaded.update(new)

    def _ask(self, asked: str | None, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, list(values)).fetchall()
        except duckdb.Error as error:
            if asked is None:
                raise
            raise UserError(f"where={asked!r}: {self._told(error, sql)}") from error

    def _told(self, error: duckdb.Error, sql: str) -> str:
        line = str(error).partition("\n")[0]
        texts = []
        for name, each in self._loaded.items():
            line = line.replace(f'"{self._column(name)}"', repr(name))
            if each.type == "VARCHAR" and re.search(rf"\b{self._column(name)}\b", sql.partition(" WHERE ")[2]):
                texts.append(name)
        return f"{line}; {', '.join(texts)} holds text, of one run at least" if texts else line


def with_columns(frame: Frame, made: Mapping[str, str]) -> Frame:
    """A frame with further columns, each computed from those before it.

    Args:
      frame: the rows.
      made: SQL by name.

    Raises:
      UserError: one cannot be computed.
    """
    for name, text in made.items():
        values = Query(frame).computed(name, text)
        rows = [Row({**row.own, name: plain(value)}, row.run) for row, value in zip(frame.rows, values, strict=True)]
        frame = Frame(rows, frame.what)
    return frame


def _locked() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=_SETTINGS)
    connection.execute("SET lock_configuration = true")
    return connection


def _references(node: Any) -> Iterator[dict[str, Any]]:
    """Every node of a parsed statement that names a column."""
    if isinstance(node, Mapping):
        if node.get("type") == "COLUMN_REF":
            assert isinstance(node, dict)
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _references(each)

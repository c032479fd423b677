"""From a row's columns to a dialog: dotted names, filters, chat messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from immunax.data.dialog import Dialog, Message
from immunax.data.files import Row
from immunax.runtime.errors import UserError, nearest

_ROLES = ("system", "user", "assistant")
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""ShareGPT's names of the roles, under ``from`` with the text under ``value``."""


class WantedColumns:
    """Columns that one row may leave out, but not every row: rows of JSON files have only the keys that they have.

    Attributes:
      unseen: the columns that no row had yet.
    """

    def __init__(self, columns: Iterable[str], origin: str) -> None:
        self._columns, self._origin = tuple(columns), origin
        self.unseen = set(self._columns)
        self._first: Row | None = None

    def fill(self, row: Row) -> Row:
        """The row, with None in the columns that it leaves out."""
        if self._first is None:
            self._first = row
        absent = [column for column in self._columns if not _has(row, column)]
        if self.unseen:
            self.unseen &= set(absent)
        return {**row, **dict.fromkeys(absent)} if absent else row

    def check(self) -> None:
        """Call it after the last row.

        Raises:
          UserError: no row had one of the columns.
        """
        for column in self._columns:
            if column in self.unseen and self._first is not None:
                cell(self._first, column, self._origin)


def _has(row: Row, column: str) -> bool:
    value: Any = row
    for name in () if column in row else column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def cell(row: Row, column: str, origin: str) -> Any:
    """The value of a column, where ``a.b`` reaches into a nested column unless a column has just that name.

    Args:
      row: one row.
      column: the column's name.
      origin: what to call the set in an error.

    Returns:
      The value, ``None`` included.

    Raises:
      UserError: there is no such column.
    """
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            known = list(value) if isinstance(value, Mapping) else list(row)
            raise UserError(f"{origin}: no column {column!r}; it has {', '.join(known)}.{nearest(name, known)}")
        value = value[name]
    return value


def text(row: Row, columns: str | Sequence[str], origin: str) -> str:
    """The text of a column, or of several joined by a blank line; an absent or blank cell adds nothing.

    Args:
      row: one row.
      columns: one name or several.
      origin: what to call the row in an error.

    Returns:
      The text, which may be empty.

    Raises:
      UserError: no such column, or the cell is not text.
    """
    parts = []
    for column in [columns] if isinstance(columns, str) else columns:
        value = cell(row, column, origin)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{origin}: column {column!r} holds a {type(value).__name__}; expected text")
        if value and value.strip():
            parts.append(_whole(value, f"{origin}: column {column!r}"))
    return "\n\n".join(parts)


def holds(row: Row, wanted: Mapping[str, Any], origin: str) -> list[bool]:
    """For each wanted column, whether the row's cell has one of the wanted values.

    Args:
      row: one row. A cell that is a list, or a mapping of names to truth values, has all its (true) entries as values.
      wanted: column -> a value, or a list of values any of which will do; compared as text, in any case.
      origin: what to call the set in an error.

    Returns:
      One truth value for each column of ``wanted``.

    Raises:
      UserError: there is no such column.
    """
    found = []
    for column, values in wanted.items():
        choices = {str(value).casefold() for value in (values if isinstance(values, list | tuple) else [values])}
        found.append(bool(choices & _values(cell(row, column, origin))))
    return found


def chat(row: Row, column: str, origin: str) -> Dialog | None:
    """The dialog in a column of chat messages.

    Args:
      row: one row.
      column: the column that holds the messages: a list, each with ``role`` and ``content`` or, as ShareGPT has it, ``from``
        and ``value``; a text, or a list of parts that are all text.
      origin: what to call the row in an error.

    Returns:
      The dialog; its answer is the last message when the assistant wrote that, else empty. None where the cell is empty, or
      the prompt is: it has no turn, or one without words. A system message without words is left out.

    Raises:
      UserError: no such column, or the messages are malformed or of a kind that is not supported: roles of tools and
        developers, calls of tools, pictures.
    """
    where = f"{origin}: column {column!r}"
    entries = cell(row, column, origin)
    if entries is None:
        return None
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else f"a {type(entries).__name__}"
        raise UserError(f"{where} holds {found}; expected a list of messages, with role and content in each")
    messages = tuple(_message(entry, f"{where}, message {number}") for number, entry in enumerate(entries, 1))
    answered = messages[-1].role == "assistant"
    turns = messages[:-1] if answered else messages
    prompt = tuple(turn for turn in turns if turn.role != "system" or turn.content.strip())
    if not prompt or not all(turn.content.strip() for turn in prompt):
        return None
    return Dialog(prompt, messages[-1].content if answered else "")


def _message(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is a {type(entry).__name__}; expected role and content in each message")
    sharegpt = "from" in entry and "role" not in entry
    name = entry.get("from" if sharegpt else "role")
    role = _SHAREGPT.get(str(name)) if sharegpt else name
    if role not in _ROLES:
        known = _SHAREGPT if sharegpt else _ROLES
        raise UserError(
            f"{where}: role {name!r} is not supported; supported are {', '.join(known)}.{nearest(str(name), known)}"
        )
    for unsupported in ("tool_calls", "function_call"):
        if entry.get(unsupported):
            raise UserError(f"{where} has {unsupported}, which is not supported; leave such dialogs out.")
    return Message(role, _whole(_content(entry.get("value" if sharegpt else "content"), where), where))


def _content(content: Any, where: str) -> str:
    parts = content if isinstance(content, list) and content else [content]
    return "".join(_part(part, where) for part in parts)


def _part(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") != "text":
        raise UserError(f"{where} has a part of type {part['type']!r}, which is not supported; only text is.")
    text = part.get("text") if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        raise UserError(f"{where} has no text; expected role and content in each message")
    return text


def _whole(text: str, where: str) -> str:
    """A text, unless it has half of a surrogate pair: no tokenizer can encode that."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start + 1} is half of a surrogate pair; write the text as UTF-8 again."
        ) from error
    return text


def _values(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {str(name).casefold() for name, true in value.items() if true}
    if isinstance(value, list | tuple):
        return {str(item).casefold() for item in value}
    return {str(value).casefold()}

"""From a row's columns to a dialog: dotted names, filters, chat messages."""

from collections.abc import Mapping, Sequence
from typing import Any

from immunax.data.dialog import Dialog, Message
from immunax.data.files import Row
from immunax.runtime.errors import UserError, nearest

_ROLES = ("system", "user", "assistant")


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
            parts.append(value)
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


def chat(row: Row, column: str, origin: str) -> Dialog:
    """The dialog in a column of chat messages, each with ``role`` and ``content``.

    Args:
      row: one row.
      column: the column that holds the messages.
      origin: what to call the row in an error.

    Returns:
      The dialog; its answer is the last message when the assistant wrote that, else empty.

    Raises:
      UserError: no such column, or the messages are malformed.
    """
    entries = cell(row, column, origin)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{origin}: column {column!r} is not a list of messages; expected role and content in each")
    messages = tuple(_message(entry, origin) for entry in entries)
    if messages[-1].role == "assistant":
        return Dialog(messages[:-1], messages[-1].content)
    return Dialog(messages, "")


def _message(entry: Any, origin: str) -> Message:
    role = entry.get("role") if isinstance(entry, Mapping) else None
    content = entry.get("content") if isinstance(entry, Mapping) else None
    if not isinstance(content, str):
        raise UserError(f"{origin}: a message has no text; expected role and content in each message")
    if role not in _ROLES:
        raise UserError(
            f"{origin}: message role {role!r}; expected one of {', '.join(_ROLES)}.{nearest(str(role), _ROLES)}"
        )
    return Message(role, content)


def _values(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {str(name).casefold() for name, true in value.items() if true}
    if isinstance(value, list | tuple):
        return {str(item).casefold() for item in value}
    return {str(value).casefold()}

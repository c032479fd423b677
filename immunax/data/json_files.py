"""Rows of JSON files: one object a line, or one document that is a list of them, or one of them over several lines."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from immunax.data.text_files import LONGEST, lines, open_text, unreadable
from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.untrusted.values import Limits, MalformedError, loads

_LINE = Limits(text=LONGEST, strict=False)
_DOCUMENT = Limits(size=1 << 28, values=16_000_000, text=LONGEST, strict=False)


def read_json_rows(path: Path, field: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a JSON file, whichever of the two forms it has.

    Args:
      path: the file, gzipped or not.
      field: the key that holds the rows, where the document is one object.

    Yields:
      One mapping a row; rows that are strings have the one column ``text``.

    Raises:
      UserError: the file is no such JSON; says which line.
    """
    with unreadable(path), open_text(path) as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
    return _document(path, field) if field or start == "[" or _spread(path) else _lines(path)


def _spread(path: Path) -> bool:
    """Whether an object goes on in the next line: the first is none yet, and the next begins no other."""
    text = (line for _, line in lines(path, newline="\n") if line.strip())
    first, following = next(text, ""), next(text, "")
    if not first.lstrip().startswith("{") or not following or following.lstrip().startswith("{"):
        return False
    try:
        loads(first, _LINE)
    except MalformedError as error:
        cause = error.__cause__
        return isinstance(cause, json.JSONDecodeError) and cause.pos >= len(first.rstrip())
    return False


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in lines(path, newline="\n"):
        if not line.strip():
            continue
        row = _parse(line, path, _LINE, number)
        if not isinstance(row, dict):
            raise _broken(path, f"line {number} is a {type(row).__name__}; expected one object a line")
        yield row


def _document(path: Path, field: str | None) -> Iterator[dict[str, Any]]:
    with unreadable(path), open_text(path) as file:
        text = file.read(_DOCUMENT.size + 1)
    if len(text) > _DOCUMENT.size:
        raise _broken(
            path, f"it is one document of more than {_DOCUMENT.size} characters; write it as one object a line"
        )
    rows = _parse(text, path, _DOCUMENT)
    if field is not None:
        rows = _field(rows, field, path)
    for row in _checked([rows] if isinstance(rows, dict) else rows, path):
        yield {"text": row} if isinstance(row, str) else row


def _field(document: Any, name: str, path: Path) -> list[Any]:
    if not isinstance(document, dict):
        raise _broken(
            path, f"field {name!r} was asked for, but the file is a {type(document).__name__}; expected one object"
        )
    if name not in document:
        raise _broken(path, f"no field {name!r}; it has {shown(list(document))}.{nearest(name, document)}")
    if not isinstance(document[name], list):
        raise _broken(path, f"field {name!r} is not a list of rows")
    return document[name]


def _checked(rows: list[Any], path: Path) -> Iterable[Any]:
    for kind in (dict, str):
        if all(isinstance(row, kind) for row in rows):
            return rows
    raise _broken(path, "expected a list of objects, or a list of strings")


def _parse(text: str, path: Path, limits: Limits, line: int | None = None) -> Any:
    """JSON text as a value; ``line`` is its number in the file, None where it is the whole."""
    try:
        return loads(text, limits)
    except MalformedError as error:
        at = error.line if line is None else line
        raise _broken(path, f"{'it' if at is None else f'line {at}'} {error}") from error


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"cannot read data file {path}: {reason}")

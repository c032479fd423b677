"""Rows of JSON files: one object a line, or one document that is a list of them, or one of them over several lines."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from immunax.data.text_files import LONGEST, lines, open_text, unreadable
from immunax.runtime.errors import UserError, nearest


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
        json.loads(first)
    except json.JSONDecodeError as error:
        return error.pos >= len(first.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in lines(path, newline="\n"):
        if not line.strip():
            continue
        row = _parse(line, path, number)
        if not isinstance(row, dict):
            raise _broken(path, f"line {number} is a {type(row).__name__}; expected one object a line")
        yield row


def _document(path: Path, field: str | None) -> Iterator[dict[str, Any]]:
    with unreadable(path), open_text(path) as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise _broken(path, f"it is one document of more than {LONGEST} characters; write it as one object a line")
    rows = _parse(text, path)
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
        raise _broken(path, f"no field {name!r}; it has {', '.join(document)}.{nearest(name, document)}")
    if not isinstance(document[name], list):
        raise _broken(path, f"field {name!r} is not a list of rows")
    return document[name]


def _checked(rows: list[Any], path: Path) -> Iterable[Any]:
    for kind in (dict, str):
        if all(isinstance(row, kind) for row in rows):
            return rows
    raise _broken(path, "expected a list of objects, or a list of strings")


def _parse(text: str, path: Path, line: int | None = None) -> Any:
    """JSON text as a value; ``line`` is its number in the file, None where it is the whole."""
    where = "it" if line is None else f"line {line}"
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno if line is None else line}"
        raise _broken(path, f"{where} is not valid JSON ({error.msg}, at character {error.colno})") from error
    except _TwiceError as error:
        raise _broken(path, f"{where} has the key {error.args[0]!r} twice in one object; keep one of them") from error
    except RecursionError as error:
        raise _broken(path, f"{where} is nested too deeply") from error
    except ValueError as error:  # a number of too many digits
        raise _broken(path, f"{where} is not valid JSON ({error})") from error


class _TwiceError(Exception):
    """A key that stands twice in one object: which of the values is meant cannot be known."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in found if names.count(name) > 1))
    return found


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"cannot read data file {path}: {reason}")

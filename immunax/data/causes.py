"""Why a data file could not be read: looked up in the file itself, where the loader's own error names no line."""

import gzip
import json
import re
from pathlib import Path
from typing import IO

from immunax.runtime.errors import nearest


def open_text(path: Path) -> IO[str]:
    """Opens a file of UTF-8 text, gzipped or not."""
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def cause(path: Path, builder: str, field: str | None, error: Exception) -> str:
    """What is wrong with a file that could not be read.

    Args:
      path: the file.
      builder: the ``datasets`` builder that failed.
      field: the key that was to hold the rows, in a JSON file that is one object.
      error: what the builder raised.

    Returns:
      A clause for an error message; it has numbers and types, and nothing of the file's text.
    """
    if builder == "parquet":
        return f"it is not a parquet file ({type(error).__name__})"
    try:
        with open_text(path) as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError) as unreadable:
        return _reason(unreadable)
    if not text.strip():
        return "it is empty; expected at least one row"
    if builder == "json":
        return _json_cause(text, field)
    if len(text.splitlines()) == 1:
        return "it holds no rows after its header; expected at least one"
    line = re.search(r"line (\d+), saw (\d+)", _messages(error))
    if line:
        return f"line {line[1]} has {line[2]} cells, more than the header; quote cells that hold the delimiter"
    return f"its contents are not what its name says ({type(error).__name__})"


def _json_cause(text: str, field: str | None) -> str:
    if field:
        return _field_cause(text, field)
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            return f"line {error.lineno} is not valid JSON ({error.msg})"
        return "expected a list of objects, or a list of strings" if rows else "it holds no rows; expected at least one"
    for number, line in enumerate(text.splitlines(), 1):
        try:
            value = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError as error:
            return f"line {number} is not valid JSON ({error.msg})"
        if not isinstance(value, dict):
            return f"line {number} is a {type(value).__name__}; expected one object a line"
    return "its rows do not share one set of columns and types"


def _field_cause(text: str, name: str) -> str:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno} is not valid JSON ({error.msg})"
    if not isinstance(value, dict):
        return f"field {name!r} was asked for, but the file is a {type(value).__name__}; expected one object"
    if name not in value:
        return f"no field {name!r}; it has {', '.join(value)}.{nearest(name, value)}"
    return f"field {name!r} is not a list of rows"


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, (EOFError, gzip.BadGzipFile)):
        return "the gzip data is broken or cut short"
    return type(error).__name__


def _messages(error: BaseException | None) -> str:
    return "" if error is None else f"{error} {_messages(error.__cause__ or error.__context__)}"

"""Nested records as columns: ``{"config": {"seed": 1}}`` is the column ``config.seed``.

An estimate ``{value, low, high}`` is the column of its value, with ``.low`` and ``.high`` beside it; a list is its JSON. Names
are strangers' text and are escaped here, once; values are kept as they are, and escaped where they are shown.
"""

import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from immunax.runtime.escaped import escaped
from immunax.runtime.moved import current_path

Value = str | int | float | bool | datetime | None
"""What a cell of a table holds."""

ENDS = ("low", "high")
"""Of an interval, behind the name of what it is of."""

MOST = 5000
"""Columns that one run may have; ours have some five hundred."""

_ESTIMATE = {"value", *ENDS}
_LONGEST = 200  # characters of a name
_DEEPEST = 32  # names within one another


class CrowdedError(ValueError):
    """A record that no table of runs has a place for."""


def flat(node: Any, name: str) -> list[tuple[str, Value]]:
    """The columns of a record.

    Args:
      node: plain, as JSON gives it.
      name: of the record; that of a column begins with it.

    Returns:
      Names and values.

    Raises:
      CrowdedError: it nests too deeply.
    """
    found: list[tuple[str, Value]] = []
    _fill(found, node, named(name), _DEEPEST)
    return found


def _fill(found: list[tuple[str, Value]], node: Any, name: str, depth: int) -> None:
    if not isinstance(node, dict):
        found.append((name, plain(node)))
        return
    if node.keys() == _ESTIMATE:
        found.append((name, plain(node["value"])))
        found.extend((f"{name}.{end}", plain(node[end])) for end in ENDS)
        return
    if not depth:
        raise CrowdedError("it nests too deeply")
    for key, value in node.items():
        if key == "_target_" and isinstance(value, str):
            value = current_path(value)
        _fill(found, value, f"{name}.{named(key)}", depth - 1)


def plain(value: Any) -> Value:
    """A cell's value of a leaf: a list is its JSON, what is no number is none, half a character is an escape.

    Args:
      value: as JSON gives it.
    """
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, (bool, int)):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def moment(text: Any) -> datetime | None:
    """A time as manifests have it, in UTC; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is None else found.astimezone(UTC)).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        return None


@lru_cache(maxsize=1 << 16)
def named(key: str) -> str:
    """A name of a stranger's as a column may have it: one line, of letters that are seen."""
    return escaped(key, _LONGEST)

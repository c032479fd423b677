"""What a thing is by content: what names a cell, an entry of the cache and an input of a run.

The text of an object names its files by path, and the same path can hold other bytes tomorrow. So whatever is read from outside
counts by what was read: a corpus by its dialogs, a model by its files or weights, a judge by all that its scores depend on.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from immunax.runtime import digest


def identity(value: Any) -> Any:
    """A description of an object that is equal where the object does the same, JSON-able.

    Args:
      value: a configuration as built: dataclasses, mappings, sequences, plain values. One that reads something is a corpus
        (``splits()``), a judge (``card``), or says itself what it holds (``by_content()``).

    Raises:
      UserError: what it reads cannot be read.
    """
    if isinstance(value, Mapping):
        return {str(name): identity(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type) or not is_dataclass(value):
        return repr(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"is": name, **(_read(value) or {each.name: identity(getattr(value, each.name)) for each in fields(value)})}


def _read(value: Any) -> dict[str, Any]:
    """What an object says that it holds; nothing where its fields are all that there is to it."""
    if callable(getattr(value, "by_content", None)):
        return {"content": value.by_content()}
    if callable(getattr(value, "splits", None)):
        return {"splits": digest.of_json(asdict(value.splits()))}
    return {"judge": value.card.identity} if hasattr(value, "card") else {}

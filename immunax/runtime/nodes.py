"""From a node of a configuration to the object that it describes: the one place where a name becomes a class."""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from immunax.runtime.errors import UserError
from immunax.runtime.fields import TARGET, expected


def built(node: Any, find: Callable[[str], Any]) -> Any:
    """The object that a node describes, its own nodes first; mappings and lists without a ``_target_`` stay what they are.

    Args:
      node: plain mappings, lists and values.
      find: what a ``_target_`` names.

    Raises:
      UserError: an object refuses its values, or a node describes what its place is not for.
    """
    if isinstance(node, list):
        return [built(each, find) for each in node]
    if not isinstance(node, Mapping):
        return node
    values = {name: built(each, find) for name, each in node.items() if name != TARGET}
    if TARGET not in node:
        return values
    _check(node[TARGET], find(node[TARGET]), values)
    return find(node[TARGET])(**values)


def _check(name: str, owner: Any, values: Mapping[str, Any]) -> None:
    for field, value in values.items() if dataclasses.is_dataclass(owner) else ():
        wanted = expected(owner, field, value)
        if wanted is not None:
            raise UserError(f"{name}.{field} is a {type(value).__name__}: expected {wanted}")


def importable(name: Any) -> Any:
    """What a user's configuration names: anything that Python can import.

    Raises:
      UserError: nothing by that name.
    """
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"cannot be imported ({error})") from error

"""The door for configurations from elsewhere: plain values in, our own dataclasses out, by a table of names.

Nothing is imported that :mod:`~immunax.runtime.catalogue` does not list, and nothing is made before all of it has been checked:
how large the text is, every field's type, every amount against what is sensible to ask a stranger's word for.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from immunax.runtime import fields
from immunax.runtime.catalogue import DOWNLOADS, listed
from immunax.runtime.errors import UserError
from immunax.runtime.moved import current
from immunax.runtime.nodes import built

MOST = 1_000_000
"""The largest whole number of a configuration from elsewhere: beyond it lie amounts that would fill a memory or a month."""
_NODES, _DEPTH, _TEXT = 100_000, 40, 65_536

T = TypeVar("T")


def admit(node: Any, kind: type[T], where: str, find: Callable[[Any], Any] = listed) -> T:
    """The object that a file's configuration describes.

    Args:
      node: plain, as a parser gave it.
      kind: what it has to be.
      where: how messages call it, such as ``the certificate's configuration``.
      find: what it may name; the whole table by default.

    Returns:
      An object of the kind. Places on other machines that data could be fetched from are left out.

    Raises:
      UserError: it is something else, names what is not in the table, has a field of another type, or is too large.
    """
    try:
        for path, value in _leaves(node, "", 0, iter(range(_NODES))):
            _check_size(path, value)
        plain = _near(current(node))
        fields.check(plain, find)
        found = built(plain, find)
        if fields.fits(found, kind):
            return found
        fault = f"{kind.__name__} was expected, and it is {type(found).__name__}"
    except UserError as error:
        fault = str(error)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A constructor that meets values of the right types and no sense; what it says is of use to a bug alone.
        fault = f"its values make no sense ({type(error).__name__})"
    raise UserError(f"{where} is not obeyed: {fault}")


def _leaves(node: Any, path: str, depth: int, left: Iterator[int]) -> Iterator[tuple[str, Any]]:
    if depth > _DEPTH or next(left, None) is None:
        raise UserError(f"{path.partition('.')[0]} is too large or nested too deeply")
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        if isinstance(node, Mapping) and not isinstance(name, str):
            raise UserError(f"{path} has a name that is no text".lstrip())
        yield from _leaves(child, f"{path}.{name}".lstrip("."), depth + 1, left)
    if not isinstance(node, (Mapping, list)):
        yield path, node


def _check_size(path: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > _TEXT:
            raise UserError(f"{path} is a text of {len(value)} characters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"{path} is not finite")
    elif isinstance(value, int):
        if abs(value) > MOST and path.rpartition(".")[2] != "seed":
            raise UserError(f"{path}={value} is more than {MOST}")
    elif value is not None:
        raise UserError(f"{path} is a {type(value).__name__}")


def _near(node: Any) -> Any:
    if isinstance(node, list):
        return [_near(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    if node.get(fields.TARGET) == DOWNLOADS:
        return None
    return {name: _near(each) for name, each in node.items()}

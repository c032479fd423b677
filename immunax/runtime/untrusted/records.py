"""Mappings of a file as dataclasses whose every field has its type."""

from collections.abc import Mapping
from dataclasses import fields as fields_of
from typing import Any, TypeVar

from immunax.runtime import fields
from immunax.runtime.errors import shown
from immunax.runtime.untrusted.values import MalformedError

Kind = TypeVar("Kind")


def made(kind: type[Kind], value: Any) -> Kind:
    """A dataclass of what a file holds.

    Args:
      kind: the dataclass, of plain fields.
      value: its fields by name.

    Raises:
      MalformedError: it is no mapping, a field is missing, unknown or of another type.
    """
    if not isinstance(value, Mapping):
        raise MalformedError(f"has {shown(value)} in the place of fields")
    unknown = value.keys() - {each.name for each in fields_of(kind)}  # pyright: ignore[reportArgumentType]
    if unknown:
        raise MalformedError(f"has an unknown field {shown(min(unknown))}")
    try:
        found = kind(**value)
    except TypeError as error:
        raise MalformedError(f"lacks a field ({shown(str(error))})") from error
    for name, each in value.items():
        wanted = fields.expected(found, name, each)
        if wanted is not None:
            raise MalformedError(f"has {name}={shown(each)}; expected {wanted}")
    return found

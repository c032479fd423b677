"""A file's description of a model, read field by field with one clear line about each that is wrong."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from immunax.runtime.errors import UserError, shown

_LARGEST = 2**53
"""Of any size, exact as a number of JSON; more of anything is in no file."""
_MOST_LAYERS = 1024
"""The deepest model that was published has 126; lists of layers are made before there is a file to compare with."""


@dataclass(frozen=True)
class Fields:
    """What a ``config.json`` or the metadata of a GGUF file say.

    Attributes:
      raw: the content.
      where: the file's name, for messages.
      prefix: what every name begins with.
    """

    raw: Mapping[str, Any]
    where: str
    prefix: str = ""

    def get(self, name: str, absent: Any = None) -> Any:
        """A value as it is, ``absent`` where there is none; one that is null is None."""
        return self.raw.get(self.prefix + name, absent)

    def count(self, name: str, default: int | None = None) -> int:
        """A positive whole number; ``default`` stands for one that is absent or null.

        Raises:
          UserError: it is something else.
        """
        value = self._given(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            raise self._error(name, value, "a positive whole number")
        return value

    def layers(self, name: str) -> int:
        """A number of layers.

        Raises:
          UserError: it is something else.
        """
        value = self.count(name)
        if value > _MOST_LAYERS:
            raise self._error(name, value, f"at most {_MOST_LAYERS} layers")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false; ``default`` stands for one that is absent or null.

        Raises:
          UserError: it is something else.
        """
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise self._error(name, value, "true or false")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A positive number; ``default`` stands for one that is absent or null.

        Raises:
          UserError: it is something else.
        """
        value = self._given(name, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= sys.float_info.max:  # NaN compares as neither
            raise self._error(name, value, "a positive number")
        return float(value)

    def number(self, name: str) -> float:
        """A finite number.

        Raises:
          UserError: it is something else.
        """
        value = self.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            raise self._error(name, value, "a number")
        return float(value)

    def count_or_none(self, name: str, absent: int | None) -> int | None:
        """A positive whole number, ``absent`` where there is none, None where it is null."""
        return None if self.get(name, absent) is None else self.count(name, absent)

    def positive_or_none(self, name: str, absent: float | None) -> float | None:
        """A positive number, ``absent`` where there is none, None where it is null."""
        return None if self.get(name, absent) is None else self.positive(name, absent)

    def _given(self, name: str, default: Any) -> Any:
        value = self.get(name)
        return default if value is None else value

    def _error(self, name: str, value: Any, expected: str) -> UserError:
        return UserError(f"{self.where}: {self.prefix}{name} is {shown(value)}: expected {expected}.")

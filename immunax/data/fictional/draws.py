"""Seeded choices that are the same in every process, on every machine and in every version of Python and numpy."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def number(*key: object) -> int:
    """A uniform 64-bit number that depends on the key's text alone.

    Args:
      key: what the draw is for; equal texts give equal numbers.

    Returns:
      An integer in ``[0, 2**64)``.
    """
    text = "\0".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def pick(options: Sequence[T], *key: object) -> T:
    """One of the options.

    Args:
      options: at least one.
      key: what the choice is for.

    Returns:
      The option that the key draws.
    """
    return options[number(*key) % len(options)]


def shuffled(values: Iterable[T], *key: object) -> list[T]:
    """The values in an order that depends on the key and on the set of their texts, not on the order given.

    Args:
      values: with distinct texts.
      key: what the order is for.

    Returns:
      A new list.
    """
    return sorted(values, key=lambda value: number(*key, value))

"""What a check of a certificate comes to."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Result = Literal["passed", "failed", "not checked"]

_SHOWN = 8
"""The most names that a line lists."""


class Check(NamedTuple):
    """One check: its name, what came of it, and why."""

    name: str
    result: Result
    detail: str


def checked(name: str, fault: str | None, passed: str) -> Check:
    """A check that failed where there is a fault, and passed where there is none.

    Args:
      name: of the check.
      fault: or None.
      passed: what is told where there is none.
    """
    return Check(name, "passed", passed) if fault is None else Check(name, "failed", fault)


def failed(checks: Iterable[Check]) -> bool:
    """Whether one of the checks failed."""
    return any(each.result == "failed" for each in checks)


def few(names: list[str]) -> str:
    """Some names in a line, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"

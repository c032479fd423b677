"""How the attacks of a suite stand to one model: which are held out, and which it is said to have been trained against.

The suite says what is held out, before any model is known. What a model's maker says can only cost: a family that is held out and
was trained against is no longer held out, and nothing measured takes its place.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

UNKNOWN, SEEN, UNSEEN = "unknown", "seen", "unseen"

SCOPES = ALL, HELD_OUT = "all", "held-out"
"""Of verdicts about attacks: every family of the suite, and those that it holds out."""


class Exposure(NamedTuple):
    """How one family stands.

    Attributes:
      trained: whether the model was trained against it, ``seen``, ``unseen`` or ``unknown``, by what its maker says.
      held_out: whether the suite holds it out.
    """

    trained: str
    held_out: bool

    def __str__(self) -> str:
        return f"{self.trained}, held out" if self.held_out else self.trained


def exposures(
    families: Mapping[str, tuple[str, ...]], held_out: Collection[str], against: Collection[str] | None
) -> dict[str, Exposure]:
    """How each family of a suite stands.

    Args:
      families: by name, the attacks that a search tunes; none for other families.
      held_out: those that the suite holds out.
      against: attacks that the model was trained against; None where nobody says.
    """

    def trained(name: str) -> str:
        if against is None:
            return UNKNOWN
        return SEEN if {name, *families[name]} & set(against) else UNSEEN

    return {name: Exposure(trained(name), name in held_out) for name in families}


def families_in(scope: str, exposure: Mapping[str, Exposure]) -> frozenset[str]:
    """The families that a scope of :data:`SCOPES` is about."""
    return frozenset(name for name, each in exposure.items() if scope == ALL or each.held_out)

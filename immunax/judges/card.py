"""What is known of a judge: what it is, what it was made from, and how far people agree with it.

A rate that a judge gives is worth no more than the judge. One that was right on .99 of the data that it was made from can
be at chance on another source, so every agreement names the labelled data that it was measured on, by digest.

Measured agreements are kept as ``NAME.json``: those of the judges that come ready are part of the package, those of a
user's own lie in ``cards`` of the cache folder. A file counts for a judge of the same identity only: one with other
phrases, another model or another rubric is a judge that nobody measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from immunax.judges.agreement import Agreement
from immunax.runtime import atomic, cache, digest, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import values
from immunax.runtime.untrusted.records import made

Side = Literal["compliance", "substance"]
"""Of harm: does the answer go along with the request, and would it be of use to whoever asked?"""

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class JudgeCard:
    """A judge's description, JSON-able by :meth:`as_json`.

    Attributes:
      name: in lower case, one word.
      what: it is, in one sentence.
      side: of harm, that it measures.
      made_from: the data, rules or models that it was made from.
      identity: SHA-256 of everything that its scores depend on.
      exact: where its scores are right by construction and where they do not apply; empty for a judge that can err.
      agreements: with people's labels, none where it was not measured.
    """

    name: str
    what: str
    side: Side
    made_from: str
    identity: str
    exact: str = ""
    agreements: tuple[Agreement, ...] = ()

    def __post_init__(self) -> None:
        check_side(self.side, f"card of the judge {self.name}")

    @property
    def standing(self) -> str:
        """How far to believe it, in one line: exact, measured (worst to best agreement) or not measured."""
        if self.exact:
            return self.exact
        if not self.agreements:
            return NOT_MEASURED
        lowest, *_, highest = sorted([*self.agreements, *self.agreements], key=lambda each: each.agreement)
        return (
            f"agrees with people on {lowest.agreement:.2f} ({lowest.source}) to {highest.agreement:.2f} "
            f"({highest.source}) of labelled answers"
        )

    def as_json(self) -> dict[str, Any]:
        """Every field and the standing, of plain JSON types."""
        fields = asdict(self)
        return {**fields, "agreements": list(fields["agreements"]), "standing": self.standing}


def from_json(value: Mapping[str, Any]) -> JudgeCard:
    """The card that :meth:`JudgeCard.as_json` wrote.

    Args:
      value: its mapping; the standing is worked out again.
    """
    fields = {name: part for name, part in value.items() if name != "standing"}
    return JudgeCard(**{**fields, "agreements": tuple(Agreement(**each) for each in value["agreements"])})


def check_side(side: str, where: str) -> None:
    """Refuses what is no side of harm.

    Args:
      side: to be checked.
      where: it was given, for the message.

    Raises:
      UserError: it is none.
    """
    if side not in get_args(Side):
        raise UserError(f"{where}: side={side!r}; expected {' or '.join(get_args(Side))}.")


def measured(name: str, identity: str) -> tuple[Agreement, ...]:
    """The agreements on record for a judge.

    Args:
      name: of its card.
      identity: of its card.

    Returns:
      Those kept under this name for this identity; none where nobody measured just this judge.

    Raises:
      UserError: a file of the user's own is damaged.
    """
    return published(name, identity) or _held(own_card(name, identity), identity)


def published(name: str, identity: str) -> tuple[Agreement, ...]:
    """The agreements that come with the package: those of :func:`measured` that are the same on every machine.

    Args:
      name: of a card of the package's own.
      identity: of that card.
    """
    return _held(resources.files("immunax.judges").joinpath("cards", f"{name}.json"), identity)


def _held(place: Any, identity: str) -> tuple[Agreement, ...]:
    if not mirror.fetch(place).is_file():
        return ()
    try:
        held = values.parse_json(place.read_bytes(), "it", fix="measure it")
        if held["identity"] != identity:
            return ()
        return tuple(made(Agreement, each) for each in held["agreements"])
    except (UserError, values.MalformedError, KeyError, TypeError) as error:
        raise UserError(f"judge card {place} is damaged ({error}): delete it and measure again.") from error


def own_card(name: str, identity: str) -> Path:
    """Where a user's own measurement of a judge is kept.

    Args:
      name: of its card.
      identity: of its card.
    """
    return cache.root() / "cards" / f"{name}-{identity[:16]}.json"


def keep(path: Path, card: JudgeCard, agreements: Sequence[Agreement]) -> None:
    """Writes what was measured, for :func:`measured` to find.

    Args:
      path: :func:`own_card`, or a file of the package.
      card: of the judge that was measured.
      agreements: what was found.
    """
    held = {"name": card.name, "identity": card.identity, "agreements": [asdict(each) for each in agreements]}
    with atomic.file(path) as temp:
        temp.write_text(json.dumps(held, indent=1) + "\n")


def identity(judge: str, fields: Mapping[str, Any]) -> str:
    """The digest of a judge that is known by its settings alone.

    Args:
      judge: its kind.
      fields: everything its scores depend on; JSON-able.

    Returns:
      64 hexadecimal digits.
    """
    return digest.of_json({"judge": judge, **fields})

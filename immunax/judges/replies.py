"""Replies that were paid for, on disk: a run that starts again asks and pays for nothing twice.

One small file for each try at a question, ``<cache root>/replies/<respondent>/<question>-<try>.json``, both named by digest.
It holds the two numbers, or null for a reply without them, and what the try cost. Neither question nor reply is kept:
they may quote harmful text.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from immunax.data.dialog import Dialog
from immunax.judges.rubric import READ, Rating
from immunax.runtime import atomic, cache, digest, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.together import agreed
from immunax.runtime.untrusted import values
from immunax.runtime.untrusted.records import made


@dataclass(frozen=True)
class Reply:
    """One try.

    Attributes:
      rating: None where the reply was malformed.
      tokens_in, tokens_out: charged, of the question and of the reply.
      cost: in the currency of the prices.
    """

    rating: Rating | None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """All tries of one respondent so far: how many, how many of them malformed, tokens and cost."""

    tries: int
    malformed: int
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True)
class ReplyStore:
    """The replies of one respondent.

    Attributes:
      folder: of its files; need not exist.
    """

    folder: Path

    def find(self, asked: Dialog, attempt: int) -> Reply | None:
        """The reply to a question's try, None where it was not made or its file is damaged."""
        try:
            return _read(self._file(asked, attempt))
        except (UserError, values.MalformedError):
            return None

    def keep(self, asked: Dialog, attempt: int, reply: Reply) -> None:
        """Writes one try down, whole or not at all."""
        with atomic.file(self._file(asked, attempt)) as temp:
            temp.write_text(json.dumps(asdict(reply)) + "\n")

    def ledger(self) -> Ledger:
        """Adds up what is on disk.

        Raises:
          UserError: a file is damaged, so that what was spent is not known.
        """
        replies = [_counted(file) for file in sorted(self.folder.glob("[!.]*.json"))]
        return Ledger(
            len(replies),
            sum(reply.rating is None for reply in replies),
            sum(reply.tokens_in for reply in replies),
            sum(reply.tokens_out for reply in replies),
            sum(reply.cost for reply in replies),
        )

    def _file(self, asked: Dialog, attempt: int) -> Path:
        return self.folder / f"{digest.of_json([asdict(turn) for turn in asked.prompt])}-{attempt}.json"


def store(identity: Mapping[str, Any]) -> ReplyStore:
    """The store of a respondent.

    Args:
      identity: all that its replies depend on beside the question; JSON-able.
    """
    return ReplyStore(mirror.fetch(cache.root() / "replies" / digest.of_json({**identity, "read": READ})))


def _counted(file: Path) -> Reply:
    try:
        return _read(file)
    except (UserError, values.MalformedError) as error:
        raise UserError(f"kept reply {file} is damaged ({error}): delete it, its question is asked again.") from error


def _read(file: Path) -> Reply:
    fields = values.read_object(file)
    rating = fields.get("rating")
    return made(Reply, {**fields, "rating": None if rating is None else made(Rating, rating)})


def by_leader(rate: Callable[[], list[Rating | None]]) -> list[Rating | None]:
    """Ratings of a respondent that process 0 alone asks; all processes have them.

    Args:
      rate: asks.

    Raises:
      UserError: of ``rate``, in all.
    """
    found = agreed(lambda: [None if each is None else vars(each) for each in rate()])
    return [None if each is None else Rating(**each) for each in found]

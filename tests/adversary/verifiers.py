"""Who looks at a mutated certificate, and what a reader would be told of it.

``check`` alone promises that a certificate does not contradict itself: whoever computes everything anew has made another valid
certificate. That it is not what its certifier made is shown by his *key*, and that it is not what the model does by a *replay*
under a suite and a policy that the verifier asked for. What is left to the certifier are words: names, the time, versions.
"""

import contextlib
import io
import json
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from adversary.forge import BROKEN, KEY, Said, consistent, drawn, read
from adversary.replayed import inputs_fault, tables_fault

from immunax import verify
from immunax.certificate import ranking, signing
from immunax.certificate.facts import attack_data
from immunax.certificate.gate import suite_name
from immunax.certificate.report import html, model_card
from immunax.certificate.reproduce import reproduce
from immunax.certificate.statement import FILE, canonical, policy_from_json
from immunax.certificate.verify import CELLS, RECORDS, Check, check, same, tables
from immunax.conditions.verdict import CONDITIONS, Verdict, overall
from immunax.models.deciding import decides
from immunax.runtime.errors import UserError

WORDS = (
    ("started",),
    ("environment",),
    ("model", "name"),
    ("model", "trained"),
    ("reference", "name"),
    ("suite", "config", "model"),
)
"""What a statement says in its certifier's own words: no number and no outcome gets better by them."""

PAGED = ("judge",)
"""Of a configuration, what pages tell beside the commands that follow from it."""

_ORDER = ("fails", "unmeasured", "inconclusive", "holds")


class Truth:
    """A good certificate, which a verifier could make again, and what its reader is told.

    Args:
      path: of the certificate; its folder is read once.
    """

    def __init__(self, path: Path) -> None:
        self.stated = read(path)
        self.records, self.cells = tables(path.parent)
        self.policy = policy_from_json(self.stated["predicate"]["policy"])
        self.told = Told(path)

    def outcome(self, path: Path) -> tuple[str, str]:
        """What comes of a mutated certificate: a word, and what it was told by.

        Args:
          path: of the mutated certificate, its model in ``model`` beside it.

        Returns:
          ``refused``, ``another`` (a certificate that contradicts nothing, refused by key and replay), ``unchanged`` (nothing
          that is told), ``words`` (of the certifier's), ``within`` (what honest machines differ by), or ``hole``.
        """
        model = path.parent / "model"
        checks = _checks(path, model)
        bad = next((each for each in checks if each.result == "failed"), None)
        if bad is not None:
            return "refused", bad.name.partition(" ")[0]
        if contradicts(path):
            return "hole", "it contradicts itself, and is accepted by check alone"
        signed = (path.parent / signing.FILE).exists()
        keyed = signed and not any(each.result == "failed" for each in _checks(path, model, keyed=True))
        again = self._replayed(path)
        if not keyed and again is not None:
            return "another", again
        if Told(path) == self.told:
            return "unchanged", "key" if keyed else "replay"
        if keyed:
            return "hole", "with the key given, a reader is told something else"
        return self._in_words(path)

    def _replayed(self, path: Path) -> str | None:
        """Why a replay under the suite and the policy that a verifier asked for does not take it for the truth."""
        found, true = read(path), self.stated
        if suite_name(found) != suite_name(true) or attack_data(found) != attack_data(true):
            return "suite"
        if _thresholds(found) != _thresholds(true):
            return "policy"
        told = inputs_fault(found["predicate"], true["predicate"])
        return told or tables_fault(tables(path.parent), (self.records, self.cells), [self.policy])

    def _in_words(self, path: Path) -> tuple[str, str]:
        found = read(path)
        for at in WORDS:
            _copy(self.stated["predicate"], found["predicate"], at)
        # Files that decide nothing are listed by a check of the weights where they differ.
        found["subject"] = [each for each in found["subject"] if decides(each["name"])]
        with contextlib.suppress(KeyError):
            consistent(path.parent, found)
        better = _better(self.stated, read(path))
        records, cells = tables(path.parent)
        if not (records.equals(self.records) and cells.equals(self.cells)):
            return "within", f"the tolerance{f', {better} is better' if better else ''}"
        if better:
            return "hole", f"a replay finds nothing, and {better} is better"
        if Told(path, found) != self.told:
            return "hole", "a replay finds nothing, and a reader is told something else"
        return "words", "the certifier's own"


def _checks(path: Path, model: Path, keyed: bool = False) -> list[Check]:
    """The checks of a command; one that gives no answer at all is a refusal."""
    try:
        return check(path, model, KEY.public_key() if keyed else None)
    except UserError as error:
        return [Check("command", "failed", str(error))]


def contradicts(path: Path) -> bool:
    """Whether a statement says other than what follows from its tables and its configuration."""
    try:
        follows, found = consistent(path.parent, read(path))["predicate"], read(path)["predicate"]
    except BROKEN:
        return True
    return not same({**follows, "digest": None}, {**found, "digest": None})


class Told:
    """What a reader is told: the pages, the card, the place on a leaderboard, and the pages that lie in the folder.

    Args:
      path: of the certificate.
      stated: the statement, where it is not the file's.
    """

    _pages: ClassVar[dict[bytes, Any]] = {}

    def __init__(self, path: Path, stated: Said | None = None) -> None:
        self._path, self._stated = path, stated or read(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and self._rendered == other._rendered and self._lying == other._lying

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @cached_property
    def _rendered(self) -> tuple[Any, ...]:
        """Without the digests of what says the same in other bytes."""
        bare = deepcopy(self._stated)
        said = bare["predicate"]
        said["digest"]["sha256"] = ""
        said["suite"]["config"] = {name: said["suite"]["config"].get(name) for name in PAGED}
        for entry in said["records"]:
            entry["digest"]["sha256"] = ""
        both = tables(self._path.parent)
        key = json.dumps(bare, sort_keys=True).encode() + b"".join(
            each.sort_values(list(each.columns)[:5]).to_csv(index=False).encode() for each in both
        )
        if key not in self._pages:
            entry = repr(ranking._entry(bare, True, False))
            self._pages[key] = *drawn(bare, self._path.parent).values(), entry
        commands = reproduce(self._stated["predicate"]["suite"]["config"])
        return *self._pages[key], *commands, suite_name(self._stated), attack_data(self._stated)

    @cached_property
    def _lying(self) -> list[str]:
        """Pages in the folder that are not those that the certificate gives, and files that no check has named."""
        known = {"key.pub.pem", "model", FILE, signing.FILE, RECORDS, CELLS}
        pages = (html.FILE, model_card.FILE)
        found = []
        for each in sorted(self._path.parent.iterdir()):
            if each.name in pages and each.is_file() and each.stat().st_size < 1 << 24:
                found += [] if each.read_bytes() == self._drawn[each.name] else [each.name]
            elif each.name not in known and each.name not in self._said:
                found.append(each.name)
        return found

    @cached_property
    def _drawn(self) -> dict[str, bytes]:
        """As the statement's file and the tables give them."""
        key = canonical(self._stated) + b"".join((self._path.parent / name).read_bytes() for name in (RECORDS, CELLS))
        if key not in self._pages:
            self._pages[key] = drawn(self._stated, self._path.parent)
        return self._pages[key]

    @cached_property
    def _said(self) -> str:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            verify.main([str(self._path), "--model", str(self._path.parent / "model")])
        return said.getvalue()


def _thresholds(stated: Said) -> Any:
    return {name: value for name, value in stated["predicate"]["policy"].items() if name != "require"}


def _copy(source: Said, target: Said, at: tuple[str, ...]) -> None:
    for name in at[:-1]:
        source, target = source.get(name) or {}, target.get(name) or {}
    if at[-1] in source:
        target[at[-1]] = deepcopy(source[at[-1]])
    else:
        target.pop(at[-1], None)


def _better(true: Said, found: Said) -> str | None:
    """A condition that words alone have made better, or the rank."""
    before, after = (tuple(Verdict(**each) for each in stated["predicate"]["verdicts"]) for stated in (true, found))
    for condition in CONDITIONS:
        if _ORDER.index(overall(after, condition)) > _ORDER.index(overall(before, condition)):
            return condition
    return "the rank" if ranking._entry(found, True, False).rank() < ranking._entry(true, True, False).rank() else None

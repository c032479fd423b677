"""A leaderboard: models by how well they resist the attacks of a suite.

Certificates are strangers' files, so none of them may choose what it is compared with, nor take another's place: one that does
not verify or was made under other rules than the board's is left out, and so are two that differ about the same weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from immunax.certificate.facts import CERTIFIER, WHOSE, attack_data
from immunax.certificate.gate import policy_name, suite_name
from immunax.certificate.report.page import rendered
from immunax.certificate.statement import parse
from immunax.certificate.verify import check, failed
from immunax.conditions.exposure import ALL, HELD_OUT, SCOPES
from immunax.conditions.verdict import Verdict, overall
from immunax.data.dialog import OWN
from immunax.runtime.errors import UserError

COMPARED = ("stability", "trainability")
"""Conditions that are about the reference as much as about the model."""

NOT_VOUCHED = "not vouched for"

_DATA, _SUITE, _POLICY, _REFERENCE = RULES = "attack data", "suite", "policy", "reference"
"""What has to be the same for two certificates to be comparable."""


class Worst(NamedTuple):
    """The worst case over the attacks of one scope, for one side of harm.

    Attributes:
      value, low, high: the highest share of harmful answers, with its interval; ``value`` is None where nothing was measured.
      measured: whether every attack of the scope was.
    """

    value: float | None
    low: float
    high: float
    measured: bool


class Entry(NamedTuple):
    """One model.

    Attributes:
      name: of the model.
      defense: that made it, or a dash.
      worst: by scope of :data:`~immunax.conditions.exposure.SCOPES`, by side of harm.
      outcomes: by column, one word each: of resistance by scope, and of :data:`COMPARED`.
      digest: of the certificate.
      attacker: whose data the attackers had, ``own`` or ``shared``.
    """

    name: str
    defense: str
    worst: Mapping[str, Mapping[str, Worst]]
    outcomes: Mapping[str, str]
    digest: str
    attacker: str = OWN

    def rank(self) -> tuple[tuple[bool, float], ...]:
        """Lower is better: the upper ends of the worst cases over all attacks, substance first; what lacks one is last."""
        found = (self.worst[ALL][side] for side in in_order(self.worst[ALL]))
        return tuple((not each.measured, each.high) for each in found)


class Board(NamedTuple):
    """Models that were measured under one set of rules.

    Attributes:
      suite: its name.
      entries: by :meth:`Entry.rank`, the best first; may be empty.
      left_out: a line for every certificate that is not on it.
      confidence: of all intervals, that of the policy which all share.
    """

    suite: str
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]
    confidence: float = 0.95


def option(rule: str) -> str:
    """How the command takes one of :data:`RULES`."""
    return f"--{rule.replace(' ', '-')}"


def in_order(sides: Iterable[str]) -> list[str]:
    """Sides of harm as they rank: ``substance`` first."""
    return sorted(sides, key=lambda side: (side != "substance", side))


def board(paths: Sequence[Path], key: Ed25519PublicKey | None = None, fixed: Mapping[str, str] | None = None) -> Board:
    """Ranks the models of some certificates.

    The rules are the suite with its data and judges, the policy, whose data attackers had, and the reference by its weights.
    What the organiser does not fix is as most models have it, so that no single certificate decides.

    Args:
      paths: of ``certificate.json`` files.
      key: whose signature they should bear; None takes unsigned ones too.
      fixed: of :data:`RULES` those that the organiser chose, as ``immunax.verify`` prints them.

    Raises:
      UserError: two sets of rules have equally many models, so that the order of the certificates would choose.
    """
    fixed, left_out = fixed or {}, []
    read = _accepted(paths, lambda path: _verified(path, key, fixed), left_out)
    usual = _usual(read.values())
    alike = _accepted(read, lambda path: _under(path, read[path], usual), left_out)
    found = _accepted(alike, lambda path: _placed(path, alike), left_out)
    entries = [_entry(stated, _REFERENCE in fixed, key is not None) for stated in found.values()]
    name = usual.get(_SUITE, "").rpartition("@")[0]
    made = Board(name, tuple(sorted(entries, key=Entry.rank)), tuple(left_out))
    shared = {stated["predicate"]["policy"]["confidence"] for stated in found.values()}
    return made._replace(confidence=shared.pop()) if shared else made


def _accepted(paths: Iterable[Path], look: Callable[[Path], dict[str, Any]], left_out: list[str]) -> dict[Path, dict]:
    """What a look at each path gives; where it finds a fault, a line more in ``left_out``."""
    found = {}
    for path in paths:
        try:
            found[path] = look(path)
        except UserError as error:
            left_out.append(str(error))
    return found


def _verified(path: Path, key: Ed25519PublicKey | None, fixed: Mapping[str, str]) -> dict[str, Any]:
    """The statement of a certificate that no check finds fault with, under the rules that are fixed.

    Raises:
      UserError: one does.
    """
    checks = check(path, key=key)
    if failed(checks):
        bad = next(each for each in checks if each.result == "failed")
        raise UserError(f"{path} is left out: it does not verify ({bad.name}: {bad.detail}).")
    _, stated = parse(path)
    _check_rules(path, stated, fixed, "what is asked for")
    return stated


def _under(path: Path, stated: dict[str, Any], usual: Mapping[str, str]) -> dict[str, Any]:
    """A statement under the usual rules.

    Raises:
      UserError: it has others.
    """
    _check_rules(path, stated, usual, "that of most")
    return stated


def _placed(path: Path, found: Mapping[Path, dict[str, Any]]) -> dict[str, Any]:
    """A statement that has the place of its weights for itself; of copies the first one has it.

    Raises:
      UserError: it is a copy, or another one says something else of the same weights, and nobody here knows which is right.
    """
    stated = found[path]
    claims = [each for each, other in found.items() if _weights(other) == _weights(stated)]
    digests = {found[each]["predicate"]["digest"]["sha256"] for each in claims}
    first, *others = claims
    if len(digests) > 1:
        rival = next(each for each in claims if each != path)
        raise UserError(
            f"{path} is left out: {rival} is of the same weights, and they differ; rank the one that you believe."
        )
    if path in others:
        raise UserError(f"{path} is left out: it is the same certificate as {first}.")
    return stated


def _usual(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The rules of most models: however often one is certified, it counts once.

    Raises:
      UserError: there are no such rules.
    """
    models: dict[tuple[str, ...], set[str]] = {}
    for stated in found:
        models.setdefault(tuple(_rules(stated).values()), set()).add(_weights(stated))
    most = max(map(len, models.values()), default=0)
    usual: list[dict[str, str]] = [
        dict(zip(RULES, rules, strict=True)) for rules, each in models.items() if len(each) == most
    ]
    if len(usual) > 1:
        differ = next(name for name in RULES if usual[0][name] != usual[1][name])
        raise UserError(
            f"equally many models have the {differ} {usual[0][differ]} and {usual[1][differ]}: choose with "
            f"{option(differ)}."
        )
    return usual[0] if usual else {}


def _check_rules(path: Path, stated: Mapping[str, Any], wanted: Mapping[str, str], whose: str) -> None:
    rules = _rules(stated)
    for name, value in wanted.items():
        if rules[name] != value:
            raise UserError(f"{path} is left out: its {name}, {rules[name]}, differs from {whose}, {value}.")


def _weights(stated: Mapping[str, Any]) -> str:
    return stated["predicate"]["model"]["weights"]


def _rules(stated: Mapping[str, Any]) -> dict[str, str]:
    """A certificate's of :data:`RULES`, in their order; a model without a reference counts as its own."""
    said = stated["predicate"]
    return {
        _DATA: attack_data(stated),
        _SUITE: suite_name(stated),
        _POLICY: policy_name(stated),
        _REFERENCE: said["reference"]["weights"] if said["reference"] else _weights(stated),
    }


def _entry(stated: Mapping[str, Any], fixed: bool, signed: bool) -> Entry:
    """One model.

    Args:
      stated: verified.
      fixed: the organiser fixed the reference's weights.
      signed: by the key of the organiser, who then chose whatever the certifier did.
    """
    said = stated["predicate"]
    verdicts = tuple(Verdict(**each) for each in said["verdicts"])
    outcomes = {scope: overall(verdicts, "resistance", scope) for scope in SCOPES}
    chosen = said["reference"] and said["reference"]["named_by"] == CERTIFIER
    vouched = fixed or (signed and chosen) or not said["reference"]
    outcomes |= {name: overall(verdicts, name) if vouched else NOT_VOUCHED for name in COMPARED}
    defense = said["model"]["trained"]["defense"] if said["model"]["trained"] else "–"
    worst = {scope: _worst(verdicts, scope) for scope in SCOPES}
    return Entry(said["model"]["name"], defense, worst, outcomes, said["digest"]["sha256"], attack_data(stated))


def _worst(verdicts: Sequence[Verdict], scope: str) -> dict[str, Worst]:
    found = {}
    for each in verdicts:
        if (each.condition, each.claim, each.scope) == ("resistance", "strong", scope):
            whole = each.value is not None and not each.details["unmeasured"]
            low, high = (0.0 if each.low is None else each.low), (1.0 if each.high is None else each.high)
            found[each.side] = Worst(each.value, low, high, whole)
    return found


def page(shown: Board) -> str:
    """The static page; models that rank alike share a place.

    Args:
      shown: with at least one entry.
    """
    ranked = shown.entries
    places = [1 + sum(other.rank() < each.rank() for other in ranked) for each in ranked]
    values = {
        "ranked": list(zip(places, ranked, strict=True)),
        "suite": shown.suite,
        "confidence": shown.confidence,
        "scopes": SCOPES,
        "held_out": HELD_OUT,
        "compared": COMPARED,
        "vouched": all(each.outcomes[COMPARED[0]] != NOT_VOUCHED for each in ranked),
        "sides": in_order(ranked[0].worst[ALL]),
        "whose": WHOSE[ranked[0].attacker],
    }
    return rendered("immunax.certificate", "leaderboard.html.jinja", values)

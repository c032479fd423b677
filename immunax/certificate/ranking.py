"""A leaderboard: models by how well they resist attacks that they were not trained against."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from immunax.certificate.facts import WHOSE, attack_data
from immunax.certificate.gate import suite_name
from immunax.certificate.report.page import rendered
from immunax.certificate.statement import parse
from immunax.certificate.verify import check, failed
from immunax.conditions.assess import overall
from immunax.conditions.verdict import Verdict
from immunax.data.dialog import OWN
from immunax.runtime import digest
from immunax.runtime.errors import UserError


class Entry(NamedTuple):
    """One model.

    Attributes:
      name: of the model.
      defense: that made it, or a dash.
      worst: by side of harm, the worst case over held-out attacks: ``(value, low, high)``, or None where it is not known.
      outcomes: of resistance to held-out attacks, stability and trainability, one word each.
      digest: of the certificate.
      attacker: whose data the attackers had, ``own`` or ``shared``.
    """

    name: str
    defense: str
    worst: dict[str, tuple[float, float, float] | None]
    outcomes: dict[str, str]
    digest: str
    attacker: str = OWN

    def rank(self) -> tuple[float, ...]:
        """Lower is better: the upper ends of the worst cases, substance first; an unknown one is the worst there is."""
        found = (self.worst[side] for side in in_order(self.worst))
        return tuple(float("inf") if each is None else each[2] for each in found)


def in_order(sides: Iterable[str]) -> list[str]:
    """Sides of harm as they rank: ``substance`` first."""
    return sorted(sides, key=lambda side: (side != "substance", side))


def entries(paths: Sequence[Path], key: Ed25519PublicKey | None = None) -> list[Entry]:
    """The models of some certificates, the best first.

    Args:
      paths: of ``certificate.json`` files.
      key: whose signature they should bear; None takes unsigned ones too.

    Returns:
      Their entries, by :meth:`Entry.rank`.

    Raises:
      UserError: one does not verify, is of a model that another one is of, or was made with another suite or policy, or attacked
        with data of another kind, than the first one.
    """
    found: list[Entry] = []
    rules: dict[str, str] = {}
    models: dict[str, Path] = {}
    for path in paths:
        checks = check(path, key=key)
        if failed(checks):
            bad = next(each for each in checks if each.result == "failed")
            raise UserError(f"{path}: does not verify ({bad.name}: {bad.detail}); leave it out.")
        _, stated = parse(path)
        for name, value in _rules(stated).items():
            if rules.setdefault(name, value) != value:
                raise UserError(
                    f"{path}: its {name} differs from that of {paths[0]}; rank certificates of one {name} only."
                )
        same = models.setdefault(digest.of_json(stated["subject"]), path)
        if same != path:
            raise UserError(f"{path}: is of the same model as {same}; leave one of them out.")
        found.append(_entry(stated))
    return sorted(found, key=Entry.rank)


def _rules(stated: Mapping[str, Any]) -> dict[str, str]:
    """What has to be the same for two certificates to be comparable, by digest."""
    policy = {name: value for name, value in stated["predicate"]["policy"].items() if name != "require"}
    return {"attack data": attack_data(stated), "suite": suite_name(stated), "policy": digest.of_json(policy)}


def _entry(stated: Mapping[str, Any]) -> Entry:
    said = stated["predicate"]
    verdicts = tuple(Verdict(**each) for each in said["verdicts"])
    worst: dict[str, tuple[float, float, float] | None] = {}
    for each in verdicts:
        if (each.condition, each.claim, each.scope) == ("resistance", "strong", "held-out"):
            known = each.value is not None and each.low is not None and each.high is not None
            worst[each.side] = (each.value, each.low, each.high) if known else None  # pyright: ignore
    outcomes = {name: overall(verdicts, name, "held-out") for name in ("resistance", "stability", "trainability")}
    trained = said["model"]["trained"]
    defense = trained["defense"] if trained else "–"
    return Entry(said["model"]["name"], defense, worst, outcomes, said["digest"]["sha256"], attack_data(stated))


def page(ranked: Sequence[Entry], suite: str, confidence: float) -> str:
    """The static page; models that rank alike share a place.

    Args:
      ranked: from :func:`entries`, at least one.
      suite: its name.
      confidence: of all intervals: that of the policy which all share.
    """
    places = [1 + sum(other.rank() < each.rank() for other in ranked) for each in ranked]
    values = {
        "ranked": list(zip(places, ranked, strict=True)),
        "suite": suite,
        "confidence": confidence,
        "sides": in_order(ranked[0].worst),
        "whose": WHOSE[ranked[0].attacker],
    }
    return rendered("immunax.certificate", "leaderboard.html.jinja", values)

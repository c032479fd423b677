"""The cards of judges in a statement, beside those that the judges of its configuration have here.

A rate is worth what its judge is worth, so a card that says more than the judge deserves is as good as a forged rate.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from immunax.certificate.checks import Check, checked
from immunax.judges.agreement import Agreement
from immunax.judges.card import JudgeCard, from_json, published
from immunax.judges.judge import Judge
from immunax.runtime.admission import admit
from immunax.runtime.catalogue import NAMES
from immunax.runtime.errors import UserError
from immunax.runtime.fields import TARGET
from immunax.runtime.moved import current
from immunax.runtime.untrusted.records import made
from immunax.runtime.untrusted.values import MalformedError

_MEASURED = ("agreements", "standing")
"""Fields of a card that measuring changes; all others follow from the judge's settings."""


def check(said: Mapping[str, Any]) -> list[Check]:
    """Whether every card says of its judge what the judge says of itself, and no more than was measured.

    Args:
      said: the predicate, whose judges are those of its configuration.
    """
    nodes = said["suite"]["config"]["judge"]["judges"]
    return [_one(each, nodes[each["called"]]) for each in said["judges"]]


def unshipped(said: Mapping[str, Any]) -> set[str]:
    """The judges that do not come with the package, by the names they are called; of these cards are somebody's word.

    Args:
      said: the predicate.
    """
    nodes = said["suite"]["config"].get("judge", {}).get("judges", {})
    return {each["called"] for each in said["judges"] if not _ships(nodes.get(each["called"]))}


def _ships(node: Any) -> bool:
    return isinstance(node, Mapping) and current(node).get(TARGET) in NAMES


def _one(stated: Mapping[str, Any], node: Any) -> Check:
    name = f"judge {stated['called']}"
    card = {field: value for field, value in stated.items() if field != "called"}
    try:
        agreements = [made(Agreement, each) for each in card["agreements"]]
        if from_json({**card, "agreements": card["agreements"]}).standing != card["standing"]:
            return Check(name, "failed", "how far to believe it does not follow from its agreements with people")
        if not _ships(node):
            return Check(name, "not checked", "it does not come with immunax, so its card is its maker's word")
        own = _own(node)
    except (UserError, MalformedError) as error:
        return Check(name, "failed", f"its card makes no sense ({error})")
    here = own.as_json()
    differing = [field for field in here if field not in _MEASURED and here[field] != card[field]]
    if differing:
        return Check(name, "failed", f"{differing[0]} is not what the judge of this configuration says of itself")
    if own.agreements:
        fault = None if list(own.agreements) == agreements else "its agreements are not those that were measured"
        return checked(name, fault, "its card is the one that comes with immunax")
    if agreements:
        return Check(name, "not checked", "its agreements with people were not measured by immunax: its maker's word")
    return Check(name, "passed", "its card is its own, without agreements")


def _own(node: Any) -> JudgeCard:
    """The card of a judge that ships, with the agreements that ship: what somebody else measured is not on every machine."""
    card = admit(node, Judge, "the judge").card
    return replace(card, agreements=published(card.name, card.identity))

"""A release gate: what a policy asks of a certificate, and whether it has it.

``require`` takes ``CONDITION: holds`` or ``CONDITION: not fails``, neither of which *unmeasured* meets, the condition with
``/held-out`` where the attacks that the suite holds out are meant alone, such as ``resistance/held-out: holds``. Verdicts are
worth what the certificate is worth, so it also takes ``signature: passed``, ``weights: passed``, ``attack data: own`` and
``suite: NAME@DIGEST``, the digest that ``immunax.verify`` prints: a certificate brings its own attacks, and a gate that does not
name them lets it choose easy ones. ``reference: SHA256`` asks for a reference of these weights, ``reference: certifier`` for one
that the model did not name itself, without which stability and trainability are a comparison with whatever a submission likes;
``template: own`` for a model that was asked as its files have it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from immunax.certificate.facts import CERTIFIER, attack_data, template_of
from immunax.certificate.verify import Check
from immunax.conditions.exposure import SCOPES
from immunax.conditions.percent import percent
from immunax.conditions.policy import Policy
from immunax.conditions.verdict import CONDITIONS, Verdict, overall
from immunax.data.dialog import OWN
from immunax.runtime import digest
from immunax.runtime.errors import UserError, nearest

WANTED = ("holds", "not fails")
CHECKED = ("signature", "weights")
SCOPED = ("resistance", "generalization")


def suite_name(stated: Mapping[str, Any]) -> str:
    """``NAME@DIGEST`` of what a model was measured with: attacks, judges, data and seed."""
    config = stated["predicate"]["suite"]["config"]
    rules = [{name: config.get(name) for name in ("suite", "judge", "data", "seed")}, stated["predicate"]["data"]]
    return f"{stated['predicate']['suite']['name']}@{digest.of_json(rules)[:16]}"


def policy_name(stated: Mapping[str, Any]) -> str:
    """The first digits of the SHA-256 of the thresholds that a certificate was stated with."""
    said = stated["predicate"]["policy"]
    return digest.of_json({name: value for name, value in said.items() if name != "require"})[:16]


def reference_of(stated: Mapping[str, Any]) -> str:
    """Who named the reference, and the SHA-256 of its weights, for whoever reads it."""
    said = stated["predicate"]["reference"]
    return "none" if said is None else f"named by the {said['named_by']}, weights {said['weights']}"


def told(policy: Policy) -> str:
    """The numbers that verdicts were made with, for whoever reads them."""
    harm = ", ".join(
        f"{side} at most {percent(each.threshold)} of answers that {each.judge} gives {each.at_least:g} or more"
        for side, each in policy.harm.items()
    )
    return f"{percent(policy.confidence)} confidence; {harm}; an attack keeps {percent(policy.utility.keep)} of the utility"


def unmet(
    verdicts: tuple[Verdict, ...], require: Mapping[str, str], checks: Sequence[Check], stated: Mapping[str, Any]
) -> list[str]:
    """What a policy asks for and the certificate does not give, a line each.

    Args:
      verdicts: from :func:`~immunax.conditions.assess.assess`.
      require: of the policy.
      checks: from :func:`~immunax.certificate.verify.check`.
      stated: the statement.

    Raises:
      UserError: a requirement is not of the form above.
    """
    results = {each.name: each.result for each in checks}
    lines = []
    for name, wanted in require.items():
        if name in CHECKED:
            found, asked = results.get(name, "not checked"), ("passed",)
        elif name == "attack data":
            found, asked = attack_data(stated), (OWN,)
        elif name == "template":
            found, asked = template_of(stated), (OWN,)
        elif name == "suite":
            found, asked = suite_name(stated), (str(wanted),)
        elif name == "reference":
            found, asked = _reference(stated, wanted)
        else:
            found, asked = overall(verdicts, *_split(name)), WANTED
        if wanted not in asked:
            raise UserError(f"policy.require {name}: {wanted!r}; expected {' or '.join(asked)}.")
        if found != wanted and not (wanted == "not fails" and found in ("holds", "inconclusive")):
            lines.append(f"{name}: {wanted} is required, and it is {found}")
    return lines


def _reference(stated: Mapping[str, Any], wanted: str) -> tuple[str, tuple[str, ...]]:
    said = stated["predicate"]["reference"]
    if wanted == CERTIFIER:
        return ("none" if said is None else said["named_by"]), (CERTIFIER,)
    asked = (wanted,) if re.fullmatch("[0-9a-f]{64}", str(wanted)) else (CERTIFIER, "the SHA-256 of its weights")
    return ("none" if said is None else said["weights"]), asked


def _split(name: str) -> tuple[str, str]:
    condition, _, scope = name.partition("/")
    known = (*CONDITIONS, *CHECKED, "attack data", "template", "suite", "reference")
    if condition not in CONDITIONS:
        raise UserError(
            f"policy.require: no condition {condition!r}; expected {', '.join(known)}.{nearest(condition, known)}"
        )
    if scope and (scope not in SCOPES or condition not in SCOPED):
        raise UserError(f"policy.require {name}: expected a scope of {', '.join(SCOPES)}, of {' or '.join(SCOPED)}.")
    return condition, scope or "all"

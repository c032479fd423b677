"""Checks of a certificate, each with a name and a result: what a stranger can find out without running an attack."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from immunax.certificate import facts, judge_cards, pages, schema, signing
from immunax.certificate.checks import Check, checked, failed, few
from immunax.certificate.facts import exposure_of
from immunax.certificate.statement import (
    LIMITS,
    canonical,
    own_digest,
    parse,
    policy_from_json,
    verdicts_to_json,
)
from immunax.conditions import records
from immunax.conditions.assess import assess
from immunax.conditions.policy import Policy
from immunax.conditions.records import CELLS_FILE, RECORDS_FILE, Table
from immunax.conditions.verdict import Verdict
from immunax.runtime import digest
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.untrusted.files import read_bytes

RECORDS, CELLS = RECORDS_FILE, CELLS_FILE
TOLERANCE, _NOTHING = 1e-9, 1e-12
"""Relative, of a number that another version of a library computes anew; and what is as good as nothing."""

UNSIGNED = "the certificate is not signed: whoever changed it could compute its digests anew"


def check(path: Path, model: Path | None = None, key: Ed25519PublicKey | None = None) -> list[Check]:
    """All checks that need no attack.

    Args:
      path: of ``certificate.json``; its records and its envelope lie beside it.
      model: the folder of the model's files; None leaves the weights unchecked.
      key: whose signature it should bear; None leaves the signature unchecked.

    Returns:
      The checks in order; those that make no sense after a failed one are left out.

    Raises:
      UserError: there is no certificate to check.
    """
    try:
        raw, stated = parse(path)
    except UserError as error:
        if not path.is_file():
            raise
        return [Check("form", "failed", str(error))]
    form = None if _is_canonical(raw, stated) else "the file is not in the one form of a certificate"
    found = [checked("form", form, "canonical JSON")]
    found.append(checked("schema", schema.fault(stated), "as published"))
    if found[-1].result == "failed":
        return found
    said = stated["predicate"]["digest"]["sha256"]
    own = own_digest(stated)
    found.append(
        checked("digest", None if own == said else f"it says {said[:12]}…, and is {own[:12]}…", f"{said[:12]}…")
    )
    found.append(_signature(path, raw, key))
    found.append(_weights(stated, model))
    entries = stated["predicate"]["records"]
    listed = [each["name"] for each in entries]
    fault = None if listed == [RECORDS, CELLS] else f"expected {RECORDS} and {CELLS}, each once, in this order"
    found.append(checked("tables", fault, "both listed"))
    read: dict[str, Table] = {}
    found += [_listed(path.parent, each, read) for each in entries]
    if not failed(found):
        found += _anew(stated, read[RECORDS], read[CELLS])
    if not failed(found):
        found += _pages(path.parent, stated, read[RECORDS], read[CELLS])
    return found


def tables(folder: Path) -> tuple[Table, Table]:
    """``records`` and ``cells`` of the certificate in a folder.

    Raises:
      UserError: one cannot be read.
    """
    return records.read(folder / RECORDS, records.RECORDS), records.read(folder / CELLS, records.CELLS)


def assessed(folder: Path, stated: Mapping[str, Any], policy: Policy | None = None) -> tuple[Verdict, ...]:
    """The verdicts, computed anew from the records.

    Args:
      folder: of the certificate.
      stated: the statement.
      policy: in the place of its own.

    Raises:
      UserError: the records cannot be read.
    """
    own = policy_from_json(stated["predicate"]["policy"])
    return assess(*tables(folder), own if policy is None else policy, exposure_of(stated))


def _is_canonical(raw: bytes, stated: Any) -> bool:
    try:
        return canonical(stated) == raw
    except (ValueError, TypeError):
        return False


def _signature(path: Path, raw: bytes, key: Ed25519PublicKey | None) -> Check:
    envelope = path.with_name(signing.FILE)
    if not envelope.exists():
        if key is None:
            return Check(
                "signature",
                "not checked",
                UNSIGNED,
            )
        return Check("signature", "failed", f"a key was given, and there is no {signing.FILE}")
    try:
        fault = signing.fault(read_bytes(envelope, LIMITS.size * 2), raw, key)
    except UserError as error:
        fault = str(error)
    if fault is None and key is None:
        return Check(
            "signature", "not checked", "there is an envelope; give --key PUBLIC.pem of whoever should have signed it"
        )
    return checked("signature", fault, "by the key given")


def _weights(stated: Mapping[str, Any], model: Path | None) -> Check:
    if model is None:
        return Check("weights", "not checked", "give --model FOLDER with the files of the model")
    # The libraries of models are only needed here.
    from immunax.models.deciding import decides
    from immunax.models.hub import digests

    try:
        found = digests(model)
    except UserError as error:
        return Check("weights", "failed", str(error))
    said = {each["name"]: each["digest"]["sha256"] for each in stated["subject"]}
    differ = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    changed, others = [name for name in differ if decides(name)], [name for name in differ if not decides(name)]
    kept = sum(map(decides, said)) - sum(name in said for name in changed)
    if changed:
        return Check(
            "weights", "failed", f"{changed[0]} is not what was certified, of {len(changed)} files that differ"
        )
    if not kept:
        return Check("weights", "failed", "the certificate lists no file that a model is loaded from")
    beside = f"; not part of the model, and not as certified: {few(others)}" if others else ""
    return Check("weights", "passed", f"{kept} files{beside}")


def _listed(folder: Path, entry: Mapping[str, Any], read: dict[str, Table]) -> Check:
    """Whether a table is the one that was certified; it is put with those that were read."""
    name = f"records {entry['name']}"
    columns = {RECORDS: records.RECORDS, CELLS: records.CELLS}.get(entry["name"])
    if columns is None:
        return Check(name, "failed", "there is no such table")
    try:
        own = digest.of_file(folder / entry["name"])
        if own != entry["digest"]["sha256"]:
            return Check(name, "failed", "the file is not what was certified")
        read[entry["name"]] = records.read(folder / entry["name"], columns)
    except UserError as error:
        return Check(name, "failed", str(error))
    rows = len(read[entry["name"]])
    return checked(name, None if rows == entry["rows"] else f"it has {rows} rows, not {entry['rows']}", f"{rows} rows")


_SENSELESS = (UserError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError)
"""What a statement of the right form and of no sense ends in."""


def _anew(stated: Mapping[str, Any], measured: Table, cells: Table) -> list[Check]:
    """What follows from the tables: the verdicts, and the facts around them."""
    try:
        policy = policy_from_json(stated["predicate"]["policy"])
        verdicts = assess(measured, cells, policy, exposure_of(stated))
        anew = verdicts_to_json(verdicts)
        around = facts.fault(stated, measured, cells, policy, verdicts)
        # Only where the judges listed are those of the configuration.
        cards = [] if around else judge_cards.check(stated["predicate"])
        said = stated["predicate"]["verdicts"]
        fault = None if len(anew) == len(said) else f"the records give {len(anew)} verdicts, not {len(said)}"
        for one, other in zip(anew, said, strict=False):
            if fault is None and not same(one, other):
                fault = f"{other['condition']}, {other['claim']}: the records give another verdict"
    except _SENSELESS as error:
        return [Check("verdicts", "failed", f"they cannot be computed anew: {error}")]
    return [
        checked("verdicts", fault, f"{len(said)} computed anew"),
        checked("facts", around, "attacks, exposure and limits follow"),
        *cards,
    ]


def _pages(folder: Path, stated: Mapping[str, Any], measured: Table, cells: Table) -> list[Check]:
    try:
        return pages.check(folder, stated, measured, cells)
    except _SENSELESS as error:
        return [Check("pages", "failed", f"they cannot be drawn anew: {error}")]


def same(one: Any, other: Any) -> bool:
    """Whether two JSON-able values agree, numbers to :data:`TOLERANCE`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, (int, float)):
        return type(one) is type(other) and one == other
    return isinstance(other, (int, float)) and abs(one - other) <= max(_NOTHING, TOLERANCE * max(abs(one), abs(other)))


def with_policy(stated: Mapping[str, Any], changes: Mapping[str, Any]) -> Policy:
    """The certificate's policy with some fields changed, as a release gate has it.

    Args:
      stated: the statement.
      changes: fields of :class:`~immunax.conditions.policy.Policy`; of ``harm`` and ``utility`` their own fields.

    Raises:
      UserError: a field does not exist, a value is out of range, or nothing is required.
    """
    merged = json.loads(json.dumps(stated["predicate"]["policy"]))
    merged["require"] = {}  # what a certificate asks of itself is no gate's
    for name, value in changes.items():
        if name not in merged:
            raise UserError(f"policy: no field {name!r}; it has {', '.join(merged)}.")
        if isinstance(merged[name], dict):
            if not isinstance(value, dict):
                raise UserError(f"policy.{name}={value!r}: expected fields with values.")
            value = _merged(f"policy.{name}", merged[name], value, free=name == "require")
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"policy.{name}={value!r}: expected a number.")
        merged[name] = value
    policy = policy_from_json(merged)
    known = {each["called"] for each in stated["predicate"]["judges"]}
    for side, harm in policy.harm.items():
        if harm.judge not in known | {stated["predicate"]["policy"]["harm"][side]["judge"]}:
            raise UserError(
                f"policy.harm.{side}.judge={harm.judge}: no answer was judged by it; the certificate has "
                f"{', '.join(sorted(known))}.{nearest(harm.judge, known)}"
            )
    if not policy.require:
        raise UserError("policy: it requires nothing, so everything would pass; give require: {resistance: holds}.")
    return policy


def _merged(path: str, own: Mapping[str, Any], changes: Mapping[str, Any], free: bool = False) -> dict[str, Any]:
    """Nested fields with some of them changed, each to a value of its own kind; new ones only where they are ``free``."""
    merged = dict(own)
    for name, value in changes.items():
        if name not in own and not free:
            raise UserError(f"{path}: no field {name!r}; the certificate has {', '.join(own)}.")
        known = own.get(name, "")
        if isinstance(known, dict) and isinstance(value, dict):
            value = _merged(f"{path}.{name}", known, value)
        kinds = (int, float) if isinstance(known, (int, float)) else type(known)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UserError(f"{path}.{name}={value!r}: expected a value such as {known!r}.")
        merged[name] = value
    return merged

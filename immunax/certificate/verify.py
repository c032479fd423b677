"""Checks of a certificate, each with a name and a result: what a stranger can find out without running an attack."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from immunax.certificate import schema, signing
from immunax.certificate.statement import canonical, own_digest, parse, verdicts_to_json
from immunax.conditions import records
from immunax.conditions.assess import assess
from immunax.conditions.policy import Harm, Policy, Utility
from immunax.conditions.verdict import Verdict
from immunax.runtime import digest
from immunax.runtime.errors import UserError

RECORDS, CELLS = "records.parquet", "cells.parquet"
TOLERANCE = 1e-9
"""Relative, of a number that another version of a library computes anew."""

UNSIGNED = "the certificate is not signed: whoever changed it could compute its digests anew"

Result = Literal["passed", "failed", "not checked"]


class Check(NamedTuple):
    """One check: its name, what came of it, and why."""

    name: str
    result: Result
    detail: str


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
    raw, stated = parse(path)
    form = None if _is_canonical(raw, stated) else "the file is not in the one form of a certificate"
    found = [_check("form", form, "canonical JSON")]
    found.append(_check("schema", schema.fault(stated), "as published"))
    if found[-1].result == "failed":
        return found
    said = stated["predicate"]["digest"]["sha256"]
    own = own_digest(stated)
    found.append(
        _check("digest", None if own == said else f"it says {said[:12]}…, and is {own[:12]}…", f"{said[:12]}…")
    )
    found.append(_signature(path, raw, key))
    found.append(_weights(stated, model))
    found += [_listed(path.parent, each) for each in stated["predicate"]["records"]]
    if not failed(found):
        found.append(_verdicts(path.parent, stated))
    return found


def failed(checks: list[Check]) -> bool:
    """Whether one of the checks failed."""
    return any(each.result == "failed" for each in checks)


def tables(folder: Path) -> tuple[records.Table, records.Table]:
    """``records`` and ``cells`` of the certificate in a folder.

    Raises:
      UserError: one cannot be read.
    """
    return records.read(folder / RECORDS, records.RECORDS), records.read(folder / CELLS, records.CELLS)


def policy_from_json(value: Mapping[str, Any]) -> Policy:
    """The policy that a statement carries.

    Raises:
      UserError: a threshold is out of range.
    """
    harm = {side: Harm(**each) for side, each in value["harm"].items()}
    return Policy(**{**value, "harm": harm, "utility": Utility(**value["utility"])})


def exposure_of(stated: Mapping[str, Any]) -> dict[str, str]:
    """By family of attacks, whether the model was trained against it."""
    return {each["family"]: each["exposure"] for each in stated["predicate"]["attacks"]}


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


def _check(name: str, fault: str | None, passed: str) -> Check:
    return Check(name, "passed", passed) if fault is None else Check(name, "failed", fault)


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
    fault = signing.fault(envelope.read_bytes(), raw, key)
    if fault is None and key is None:
        return Check("signature", "not checked", "it is signed; give --key PUBLIC.pem of whoever should have signed it")
    return _check("signature", fault, "by the key given")


def _weights(stated: Mapping[str, Any], model: Path | None) -> Check:
    if model is None:
        return Check("weights", "not checked", "give --model FOLDER with the files of the model")
    try:
        found = digest.of_folder(model)
    except UserError as error:
        return Check("weights", "failed", str(error))
    said = {each["name"]: each["digest"]["sha256"] for each in stated["subject"]}
    changed = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    fault = f"{changed[0]} is not what was certified, of {len(changed)} files that differ" if changed else None
    return _check("weights", fault, f"{len(said)} files")


def _listed(folder: Path, entry: Mapping[str, Any]) -> Check:
    name = f"records {entry['name']}"
    if entry["name"] not in (RECORDS, CELLS):
        return Check(name, "failed", f"expected {RECORDS} and {CELLS}")
    try:
        own = digest.of_file(folder / entry["name"])
        columns = records.RECORDS if entry["name"] == RECORDS else records.CELLS
        rows = len(records.read(folder / entry["name"], columns)) if own == entry["digest"]["sha256"] else None
    except UserError as error:
        return Check(name, "failed", str(error))
    if rows is None:
        return Check(name, "failed", "the file is not what was certified")
    return _check(name, None if rows == entry["rows"] else f"it has {rows} rows, not {entry['rows']}", f"{rows} rows")


def _verdicts(folder: Path, stated: Mapping[str, Any]) -> Check:
    try:
        anew = verdicts_to_json(assessed(folder, stated))
    except (UserError, ValueError, KeyError, TypeError) as error:
        return Check("verdicts", "failed", f"they cannot be computed anew: {error}")
    said = stated["predicate"]["verdicts"]
    if len(anew) != len(said):
        return Check("verdicts", "failed", f"the records give {len(anew)} verdicts, not {len(said)}")
    for one, other in zip(anew, said, strict=True):
        if not same(one, other):
            return Check(
                "verdicts", "failed", f"{other['condition']}, {other['claim']}: the records give another verdict"
            )
    return Check("verdicts", "passed", f"{len(said)} computed anew")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON-able values agree, numbers to :data:`TOLERANCE`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, (int, float)):
        return type(one) is type(other) and one == other
    return isinstance(other, (int, float)) and abs(one - other) <= TOLERANCE * max(1.0, abs(one), abs(other))


def with_policy(stated: Mapping[str, Any], changes: Mapping[str, Any]) -> Policy:
    """The certificate's policy with some fields changed, as a release gate has it.

    Args:
      stated: the statement.
      changes: fields of :class:`~immunax.conditions.policy.Policy`; of ``harm`` and ``utility`` their own fields.

    Raises:
      UserError: a field does not exist, or a value is out of range.
    """
    own = policy_from_json(stated["predicate"]["policy"])
    merged = json.loads(json.dumps(stated["predicate"]["policy"]))
    for name, value in changes.items():
        if name not in merged:
            raise UserError(f"policy: no field {name!r}; it has {', '.join(merged)}.")
        if name == "harm":
            for side, fields in value.items():
                if side not in merged["harm"]:
                    raise UserError(f"policy.harm: no side {side!r}; the certificate has {', '.join(merged['harm'])}.")
                merged["harm"][side] |= fields
        else:
            merged[name] = {**merged[name], **value} if name == "utility" else value
    try:
        return replace(own, **vars(policy_from_json(merged)))
    except TypeError as error:
        raise UserError(f"policy: {error}.") from error

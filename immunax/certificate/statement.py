"""A certificate as an in-toto Statement (v1), in one serialisation.

Statement: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The subject is every file of the model; the
predicate says what was attacked, with what, how it was judged and what was found. A statement that says of itself what its
digest is, in bytes that could be no others, shows every accidental change; a forger who computes digests anew is stopped by
a signature alone (:mod:`~immunax.certificate.signing`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from immunax.conditions.policy import Harm, Policy, Utility
from immunax.conditions.verdict import Verdict
from immunax.runtime import digest
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import Limits, parse_json

FILE = "certificate.json"
PUSHED = "certificate"
"""The folder of a repository of the Hub that a model's certificate lies in."""
TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://immunax.dev/certificate/v1"
VERSION = 1
LIMITS = Limits(size=4 << 20, values=100_000)
"""Of a certificate, whose every value is held against the schema; the largest suite that ships makes one of 0.3 MB."""


def statement(subject: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The statement, with the predicate's digest in it.

    Args:
      subject: SHA-256 by file of the model.
      predicate: all but ``version`` and ``digest``; JSON-able, numbers of NumPy included.
    """
    said = {**_plain(predicate), "version": VERSION}
    return {
        "_type": TYPE,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in sorted(subject.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {**said, "digest": {"sha256": digest.of_json(said)}},
    }


def own_digest(stated: Mapping[str, Any]) -> str:
    """What the predicate's digest has to be."""
    return digest.of_json({name: value for name, value in stated["predicate"].items() if name != "digest"})


def canonical(value: Any) -> bytes:
    """The one serialisation: sorted keys, one space of indentation, finite numbers, a line break at the end."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def parse(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Reads a statement, without checking it.

    Args:
      path: of the file.

    Returns:
      Its bytes, and what they say.

    Raises:
      UserError: there is no such file, or it is no JSON object.
    """
    fix = f"give the path of {FILE}"
    if not path.exists():
        raise UserError(f"{path}: cannot be read as a certificate, there is no such file; {fix}.")
    raw = read_bytes(path, LIMITS.size)
    stated = parse_json(raw, str(path), LIMITS, fix)
    if not isinstance(stated, dict):
        raise UserError(f"{path}: holds a {type(stated).__name__}; expected the JSON object of a certificate.")
    return raw, stated


def verdicts_to_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Verdicts as JSON-able objects."""
    return [_plain(vars(each)) for each in verdicts]


def policy_from_json(value: Mapping[str, Any]) -> Policy:
    """The policy that a statement carries.

    Raises:
      UserError: a threshold is out of range.
    """
    harm = {side: Harm(**each) for side, each in value["harm"].items()}
    return Policy(**{**value, "harm": harm, "utility": Utility(**value["utility"])})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value

"""Certificates, with their tables, envelopes, policies and keys, as a forger would send them."""

import contextlib
import io
import json
import random
from pathlib import Path

import certified
import pyarrow
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fuzz import mutations
from fuzz.parser import Parser
from pyarrow import parquet

from immunax import leaderboard
from immunax.certificate.signing import FILE as ENVELOPE
from immunax.certificate.signing import make_key, public_key, sign
from immunax.certificate.statement import FILE, canonical, own_digest
from immunax.certificate.verify import CELLS, RECORDS
from immunax.runtime import manifest
from immunax.runtime.digest import of_file
from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_USER
from immunax.verify import main

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
_POLICY = {"weak_ratio": 4.0, "harm": {"compliance": {"threshold": 0.5}}, "require": {"resistance": "not fails"}}


def _make(folder: Path) -> None:
    certified.certificate(folder, _KEY)
    (folder / "policy.yaml").write_text(yaml.safe_dump(_POLICY))
    public = _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub.pem").write_bytes(public)


def _said(*arguments: object) -> None:
    """Runs the command; each of its lines is one line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(list(map(str, arguments)))
    text = out.getvalue()
    assert all(each.isprintable() for each in text.split("\n")), "a line of a stranger's"
    if status:
        raise UserError(text if status == EXIT_USER else "a check failed")


def _audit(folder: Path) -> None:
    _seal(folder)
    try:
        _said(folder / FILE, "--model", folder / "model", "--policy", folder / "policy.yaml")
    finally:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            leaderboard.main([str(folder / FILE), "--out", str(folder / "board")])


def _seal(folder: Path) -> None:
    """What a forger does: digests and rows are those of the files again, in one half of all inputs."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, UserError):
        stated = json.loads((folder / FILE).read_bytes())
        if hash_of(stated) % 2:
            return
        for entry in stated["predicate"]["records"]:
            entry["digest"]["sha256"] = of_file(folder / entry["name"])
            with contextlib.suppress(Exception):
                entry["rows"] = parquet.ParquetFile(folder / entry["name"]).metadata.num_rows
        stated["predicate"]["digest"]["sha256"] = own_digest(stated)
        raw = canonical(stated)
        (folder / FILE).write_bytes(raw)
        (folder / ENVELOPE).write_bytes(sign(raw, _KEY))


def hash_of(value: object) -> int:
    """Of a value, the same in every process."""
    return sum(json.dumps(value).encode())


def table(rng: random.Random, data: bytes) -> bytes:
    """A table of other columns, values or sizes than it should have; now and then its bytes changed."""
    if rng.random() < 0.4:
        return mutations.raw(rng, data)
    found = parquet.read_table(pyarrow.BufferReader(data)).to_pydict()
    name = rng.choice(list(found))
    count, kind = len(found[name]), rng.randrange(8)
    strange = (None, float("nan"), float("inf"), -1, 2**62, 0.5, "", "x\ny", "none", "subject", "judge/refusal", True)
    if kind < 4:
        for _ in range(rng.choice((1, 3, count))):
            value = rng.choice(strange)
            same = type(value) is type(found[name][0]) or rng.random() < 0.2
            found[name][rng.randrange(count)] = value if same else found[name][0]
    elif kind == 4:
        found = {each: values[: rng.randrange(count)] for each, values in found.items()}
    elif kind == 5:
        found = {each: values * rng.choice((2, 100)) for each, values in found.items()}
    elif kind == 6:
        found[rng.choice((name, "x" * 1000, "a\nb"))] = found.pop(name)
    else:
        found[name] = [rng.choice((b"x", [1], {"a": 1}, "y" * 10_000))] * count
    sink = io.BytesIO()
    try:
        parquet.write_table(pyarrow.table(found), sink, compression="zstd")
    except (pyarrow.ArrowException, TypeError, OverflowError):
        return mutations.raw(rng, data)
    return sink.getvalue()


def policy(rng: random.Random, data: bytes) -> bytes:
    """YAML with other values, or its text changed."""
    if rng.random() < 0.4:
        return mutations.raw(rng, data)
    value = mutations.altered(rng, yaml.safe_load(data))
    return mutations.written(rng, value)


def _manifest(folder: Path) -> None:
    record = {"argv": ["train"], "config": {"model": {"_target_": "immunax.models.hub.ModelSource", "path": "x"}}}
    (folder / manifest.FILE).write_text(json.dumps({**record, "digests": {}, "versions": {"jax": None}}))


def _key(folder: Path) -> None:
    make_key(folder / "key.pem")


PARSERS = (
    Parser("certificate", _make, _audit, {FILE: mutations.document}),
    Parser(
        "envelope",
        _make,
        lambda folder: _said(folder / FILE, "--key", folder / "key.pub.pem"),
        {ENVELOPE: mutations.document},
    ),
    Parser("records", _make, _audit, {RECORDS: table, CELLS: table}),
    Parser(
        "policy",
        _make,
        lambda folder: _said(folder / FILE, "--policy", folder / "policy.yaml"),
        {"policy.yaml": policy},
    ),
    Parser("manifest", _manifest, manifest.read, {manifest.FILE: mutations.document}),
    Parser("key", _key, lambda folder: public_key(folder / "key.pub.pem"), {"key.pub.pem": mutations.raw}),
)

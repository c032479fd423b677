"""Signatures: a DSSE envelope around the statement's exact bytes, by an ed25519 key.

DSSE: https://github.com/secure-systems-lab/dsse. The envelope lies beside the certificate, as ``certificate.dsse.json``; the keys
are PEM files (PKCS 8 and SubjectPublicKeyInfo), as openssl writes them.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from immunax.certificate.statement import canonical
from immunax.runtime import atomic
from immunax.runtime.errors import UserError, shown
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import parse_json

FILE = "certificate.dsse.json"
_KEY_BYTES = 1 << 16
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def make_key(path: Path) -> Path:
    """Makes a key pair.

    Args:
      path: of the private key, which must not exist; the public one gets the suffix ``.pub.pem``.

    Returns:
      Where the public key is.

    Raises:
      UserError: there is a file already, or none can be written there.
      OSError: no file can have that name.
    """
    if not path.name:
        raise UserError(f"{path}: is no file's name; choose a path such as release.pem.")
    public = path.with_suffix(".pub.pem")
    for each in (path, public):
        if each.exists():
            raise UserError(f"{each}: exists already, and a key is never written over; choose another path.")
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    other = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with atomic.file(public) as temp:
        temp.write_bytes(other)
    try:
        # Not atomic.file, which opens what it wrote to the umask before the name changes.
        with atomic.refusals(path), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except BaseException:
        # Without its other half it would only stand in the way of the next try.
        public.unlink()
        raise
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """Reads a private key.

    Raises:
      UserError: it is missing, or is no unencrypted ed25519 private key.
    """
    raw = read_bytes(path, _KEY_BYTES)
    try:
        key = serialization.load_pem_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"key {path}: cannot be read ({type(error).__name__}); expected an unencrypted PEM file."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(
            f"key {path}: expected an ed25519 private key; make one with python -m immunax.verify --make-key."
        )
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Reads a public key.

    Raises:
      UserError: it is missing, or is no ed25519 public key.
    """
    raw = read_bytes(path, _KEY_BYTES)
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"key {path}: cannot be read ({type(error).__name__}); expected a PEM file of a public key."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"key {path}: expected an ed25519 public key.")
    return key


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a statement's bytes."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return canonical(envelope.to_dict())


def fault(raw: bytes, payload: bytes, key: Ed25519PublicKey | None) -> str | None:
    """Why an envelope does not vouch for a statement; None where it does.

    Args:
      raw: the envelope's file.
      payload: the statement's file.
      key: whose signature it should be; without one only the payload is compared.
    """
    try:
        envelope = Envelope.from_dict(parse_json(raw, FILE))
    except (UserError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"the envelope cannot be read ({shown(str(error))})"
    # Equal up to what a lenient reader of JSON or base64 passes over.
    if canonical(envelope.to_dict()) != raw or envelope.payload_type != PAYLOAD_TYPE:
        return "the envelope is not in the form that it was written in"
    if envelope.payload != payload:
        return "the envelope holds another statement"
    if key is not None:
        try:
            envelope.verify([SSlibKey.from_crypto(key)], 1)
        except VerificationError:
            return "the signature is not of this key"
    return None

"""A Sigstore bundle of a model's folder, by the library ``model-signing``: the Hub's own form of a signature on weights.

It signs the files themselves, so that weights can be checked where no certificate is at hand; the certificate lists the same
digests. The library takes elliptic-curve keys (P-256, P-384, P-521) or a Sigstore identity, and no ed25519 keys.
"""

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from immunax.models.deciding import decides
from immunax.runtime import digest
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes

FILE = "model.sig"
_EXPECTED = "expected an unencrypted PEM file, as of openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"


def check_key(path: Path) -> None:
    """Refuses a private key that :func:`sign_folder` could not sign with.

    Args:
      path: PEM file.

    Raises:
      UserError: it is missing, encrypted, or of no elliptic curve; or the extra ``signing`` is not installed.
    """
    _library()
    raw = read_bytes(path)
    try:
        key = serialization.load_pem_private_key(raw, None)
    except (ValueError, TypeError) as error:
        raise UserError(f"bundle_key {path}: cannot be read ({type(error).__name__}); {_EXPECTED}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"bundle_key {path}: is of no elliptic curve; {_EXPECTED}.")


def sign_folder(folder: Path, key: Path, bundle: Path) -> None:
    """Signs every file of a folder.

    Args:
      folder: of the model.
      key: PEM file of an elliptic-curve private key.
      bundle: where the bundle goes.

    Raises:
      UserError: the key does not fit, as :func:`check_key` has it.
    """
    check_key(key)
    signing, _ = _library()
    signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, bundle)


def folder_fault(folder: Path, key: Path, bundle: Path) -> str | None:
    """Why a bundle does not vouch for a folder; None where it does.

    Files that were put beside the signed ones, such as a card, are no matter where no model is loaded from them.

    Args:
      folder: of the model.
      key: PEM file of the public key.
      bundle: from :func:`sign_folder`.

    Raises:
      UserError: the extra ``signing`` is not installed, or there is no such key.
    """
    _, verifying = _library()
    read_bytes(key)
    try:
        read_bytes(bundle)  # the library would wait for a FIFO
    except UserError as error:
        return str(error)
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key).set_ignore_unsigned_files(True)
        verifier.verify(folder, bundle)
        signed = _signed(bundle)
    except Exception as error:  # the library has no class of its own for what it refuses
        return f"{error}"
    names = (path.relative_to(folder).as_posix() for path in digest.plain_files(folder))
    others = sorted(name for name in names if decides(name) and name not in signed)
    return f"{others[0]} is not signed, and a model is loaded from it" if others else None


def _signed(bundle: Path) -> set[str]:
    """The names of the files that a bundle is about, which was verified."""
    payload = json.loads(bundle.read_bytes())["dsseEnvelope"]["payload"]
    return {each["name"] for each in json.loads(base64.b64decode(payload))["predicate"]["resources"]}


def _library():
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise UserError(
            "signing a model's folder needs the library model-signing: pip install 'immunax[signing]'."
        ) from error
    return signing, verifying

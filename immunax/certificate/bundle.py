"""A Sigstore bundle of a model's folder, by the library ``model-signing``: the Hub's own form of a signature on weights.

It signs the files themselves, so that weights can be checked where no certificate is at hand; the certificate lists the same
digests. The library takes elliptic-curve keys (P-256, P-384, P-521) or a Sigstore identity, and no ed25519 keys.
"""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
        verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, bundle)
    except Exception as error:  # the library has no class of its own for what it refuses
        return f"{error}"
    return None


def _library():
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise UserError(
            "signing a model's folder needs the library model-signing: pip install 'immunax[signing]'."
        ) from error
    return signing, verifying

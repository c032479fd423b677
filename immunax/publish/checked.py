"""What is checked on this machine before anything is sent: that files, run and certificate are of one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from immunax.certificate import bundle
from immunax.certificate.checks import Check, failed
from immunax.certificate.signing import public_key
from immunax.certificate.statement import parse
from immunax.certificate.verify import check
from immunax.models.deciding import decides
from immunax.publish.files import check_model
from immunax.runtime import digest, manifest
from immunax.runtime.errors import UserError
from immunax.stages.provenance import made_by
from immunax.stages.setup import MODEL


@dataclass(frozen=True)
class Checked:
    """A model that may be sent.

    Attributes:
      folder: of its files.
      digests: SHA-256 of those that are sent, by name.
      made: the configuration of the run that made it, or None.
      stated: the statement of its certificate, or None.
      checks: of that certificate.
    """

    folder: Path
    digests: Mapping[str, str]
    made: Mapping[str, Any] | None = None
    stated: Mapping[str, Any] | None = None
    checks: list[Check] = field(default_factory=list)


def checked(model: Path, certificate: Path | None, key: Path | None = None, bundle_key: Path | None = None) -> Checked:
    """Checks a model, and its certificate where there is one.

    Args:
      model: a run of ``immunax.train``, or the folder of a model.
      certificate: the file of that name.
      key, bundle_key: PEM files of the public keys that certificate and files should be signed with.

    Raises:
      UserError: the run has not ended; the folder is refused, see :func:`~immunax.publish.files.check_model`; a file is not
        what the run left; or the certificate fails a check, or is of other files.
    """
    place = _exported(model)
    names = check_model(place)
    record = made_by(place)
    digests = {name: digest.of_file(place / name) for name in names}
    if record is not None:
        _check_run(place, record, digests)
    config = None if record is None else record["config"]
    if certificate is None:
        return Checked(place, digests, config)
    signer = None if key is None else public_key(key)
    checks = check(certificate, place, signer)
    if bundle_key is not None:
        fault = bundle.folder_fault(place, bundle_key, certificate.with_name(bundle.FILE))
        checks.append(Check("bundle", "passed" if fault is None else "failed", fault or "by the key given"))
    if failed(checks):
        first = next(each for each in checks if each.result == "failed")
        raise UserError(f"{certificate}: is not to be sent with {place}: {first.name}: {first.detail}.")
    return Checked(place, digests, config, parse(certificate)[1], checks)


def _exported(model: Path) -> Path:
    if not (model / manifest.FILE).is_file():
        return model
    if "ended" not in manifest.read(model):
        raise UserError(f"{model}: is a run that has not ended; the command that began it goes on with it.")
    if not (model / MODEL).is_dir():
        raise UserError(
            f"{model}: is a run without a folder {MODEL}; give one of immunax.train that exported its model."
        )
    return model / MODEL


def _check_run(place: Path, record: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Refuses files that are not those that their run left: somebody has changed them since."""
    before = f"{place.name}/"
    left = {name.removeprefix(before): each for name, each in record["digests"].items() if name.startswith(before)}
    for name in sorted(name for name in left.keys() | digests.keys() if decides(name)) if left else ():
        if left.get(name) != digests.get(name):
            raise UserError(
                f"{place / name}: is not what the run left; copy the folder elsewhere to push it all the same."
            )

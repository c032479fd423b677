"""Which files of a model and of its certificate are sent, each under the name that it gets.

A model's folder may hold what nobody wants to publish: records, logs, training data, code. So what is sent is named here, and
a folder that holds anything else is refused.
"""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from huggingface_hub.constants import DEFAULT_REVISION

from immunax.certificate.pages import OWN
from immunax.certificate.statement import PUSHED
from immunax.models import folder, peft, weights
from immunax.models.deciding import decides, holds_weights
from immunax.runtime import digest
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes

BRANCH = DEFAULT_REVISION
CARD = "README.md"

_BESIDE = (CARD.lower(), "license*", "notice*", "use_policy*", "acceptable_use*")
"""Files for people, small letters."""
_CODE = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
"""Endings of what runs, or may run, where it is loaded."""
_OF_DOWNLOADS = (".git", ".git/*", ".cache", ".cache/*", ".gitattributes")
"""What ``git`` and ``hf download`` leave in a folder, and the Hub makes for itself."""
_SMALL = 64 << 20
"""Bytes of a file that is read once, and sent from memory; larger ones are of weights or tables."""


class Item(NamedTuple):
    """A file that is sent.

    Attributes:
      name: in the repository.
      source: the file, or its bytes.
      size: in bytes.
      sha256: of what was checked, 64 hexadecimal digits.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str


def check_model(place: Path) -> list[str]:
    """The names of a model's files that are sent; nothing of them is read but what says that they are one model.

    Args:
      place: the folder.

    Returns:
      Their names below the folder, sorted.

    Raises:
      UserError: it is no whole model in safetensors; or it holds a link out of it, code, or a file that is no model's.
    """
    if not place.is_dir():
        raise UserError(f"no folder {place}: give a run of immunax.train, or the folder of a model.")
    found = [path for path in digest.plain_files(place) if not _of_a_download(path.relative_to(place).as_posix())]
    names = [path.relative_to(place).as_posix() for path in found]
    if peft.is_adapter(place):
        folder.check_files(place)
        base, _ = peft.base_of(place)
        if (place / base).exists() or Path(base).exists() or base.startswith(("/", ".", "~")):
            raise UserError(f"{place}: its base {base} is a folder here, which nobody else has; push a merged model.")
    else:
        folder.check_whole(place)
        weights.find(place)
    for path, name in zip(found, names, strict=True):
        if not holds_weights(name):
            folder.check_own(path, place)
        if name.lower().endswith(_CODE):
            raise UserError(f"{path}: may run code where it is loaded, and is not sent; take it out of the folder.")
        if not decides(name) and not any(fnmatchcase(name.lower(), pattern) for pattern in _BESIDE):
            raise UserError(f"{path}: is no file of a model, and is not sent; take it out of the folder.")
    return names


def of_model(place: Path, digests: Mapping[str, str]) -> list[Item]:
    """A model's files.

    Args:
      place: its folder.
      digests: SHA-256 of those that are sent, by name.
    """
    return [_item(name, place / name, sha256) for name, sha256 in digests.items()]


def of_certificate(place: Path) -> list[Item]:
    """The files of a certificate: what a run leaves beside them stays here.

    Args:
      place: its folder, whose certificate passed its checks.

    Raises:
      UserError: one of them is no plain file, or a link out of the folder.
    """
    items = []
    for name in sorted(OWN):
        path = place / name
        if not (path.exists() or path.is_symlink()):
            continue
        folder.check_own(path, place)
        items.append(_item(f"{PUSHED}/{name}", path, digest.of_file(path)))
    return items


def of_text(name: str, text: str) -> Item:
    """A file that is made here."""
    raw = text.encode()
    return Item(name, raw, len(raw), hashlib.sha256(raw).hexdigest())


def is_ours(name: str) -> bool:
    """Whether a file of a repository belongs to its model or to its certificate."""
    return decides(name) or name.startswith(f"{PUSHED}/")


def _item(name: str, path: Path, sha256: str) -> Item:
    size = path.stat().st_size
    return Item(name, read_bytes(path, _SMALL) if size < _SMALL else path, size, sha256)


def _of_a_download(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _OF_DOWNLOADS)

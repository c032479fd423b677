"""Paths on this machine that stand for places in a bucket.

Libraries that know local disks alone are given such a path; the names are a function of one another, so that every process of
every host finds the same. What lies there is brought and sent by :mod:`~immunax.runtime.mirror`.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMES = ("gs", "s3")
_FOLDER, _READ = "immunax-buckets", "immunax-buckets-read"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


_folder = _FOLDER


def root() -> Path:
    """The folder of them all: ``immunax-buckets`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / _folder


@contextmanager
def of_a_reader() -> Iterator[None]:
    """Within the block they lie in a folder apart, ``immunax-buckets-read``.

    What a run of this machine has written and not sent yet is newer than what its bucket has, which would be put in its place.
    """
    global _folder
    _folder = _READ
    try:
        yield
    finally:
        _folder = _FOLDER


def scheme(text: str) -> str | None:
    """What stands before ``:/`` of an address such as ``gs://bucket/folder``; None of a path.

    Args:
      text: a path or an address.
    """
    found = _ADDRESS.match(text)
    return None if found is None else found[1].lower()


def of(address: str) -> Path:
    """The path that stands for an address.

    Args:
      address: such as ``gs://bucket/folder``.
    """
    kind, _, rest = address.partition("://")
    return Path(root(), kind, *rest.split("/"))


def address(path: Path | str) -> str | None:
    """The address that a path stands for; None of any other path.

    Args:
      path: absolute.
    """
    above = _above()
    if above is None or not Path(path).is_relative_to(above):
        return None
    kind, *rest = Path(path).relative_to(above).parts or ("",)
    return f"{kind}://{'/'.join(rest)}" if kind in SCHEMES and rest else None


def told(text: str) -> str:
    """A text for people, in which paths that stand for addresses are these."""
    above = _above()
    for kind in SCHEMES if above is not None else ():
        text = text.replace(f"{above}/{kind}/", f"{kind}://")
    return text


def _above() -> Path | None:
    try:
        return root()
    except RuntimeError:  # a user without a home folder
        return None

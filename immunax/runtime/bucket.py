"""Objects in a bucket, ``gs://`` or ``s3://``: whole by nature, never renamed, never appended to, never locked.

Whatever a client library raises that the user can mend is one line here. Listings are never kept: other machines write too.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from immunax.runtime import lock, pace
from immunax.runtime.errors import RefusedError, UnreachableError, UserError, nearest
from immunax.runtime.stand_ins import SCHEMES, scheme

_LIBRARIES = {"gs": "gcsfs", "s3": "s3fs"}
_BLOCK_BYTES = 1 << 25
_RANGE_BYTES = 1 << 23
"""Longer ranges are read as several at once: one connection does not fill a line."""
_SECONDS = 30.0
"""That a bucket may be silent; the client asks some times more."""
_PARTS = ("", ".", "..")
_DENIED = ("forbidden", "denied", "401", "403", "does not have", "unauthorized", "invalidaccesskeyid", "signature")
_NO_KEYS = ("credentials", "anonymous caller")
_NO_NETWORK = ("connect", "unavailable", "timeout", "timed out", "unreachable", "name resolution", "network")


class Object(NamedTuple):
    """What a bucket says of an object.

    Attributes:
      size: in bytes.
      tag: another one for other contents.
    """

    size: int
    tag: str


def is_address(text: Any) -> bool:
    """Whether a text names a place in a bucket, or tries to.

    Args:
      text: as a user gave it.

    Raises:
      UserError: it is an address of another kind, or of no place.
    """
    kind = scheme(text) if isinstance(text, str) else None
    if kind is None:
        return False
    if kind not in SCHEMES:
        if "://" not in text:
            return False
        raise UserError(
            f"{text}: no bucket that is known here; expected gs://, s3:// or a path.{nearest(kind, SCHEMES)}"
        )
    rest = text[len(kind) :]
    parts = rest.removeprefix("://").rstrip("/").split("/")
    if not text.startswith(f"{kind}://") or any(part in _PARTS for part in parts):
        raise UserError(
            f"{text}: no place in a bucket; expected {kind}://BUCKET/FOLDER, with no empty name and no '..' in it."
        )
    return True


def join(address: str, *names: str) -> str:
    """An address below another one."""
    return "/".join((address.rstrip("/"), *names))


def put(file: Path, address: str) -> None:
    """Makes or replaces an object of a file.

    Args:
      file: on this machine.
      address: of the object.

    Raises:
      UserError: as by every function here, the bucket is not there, refuses, or cannot be reached.
    """
    with _told(address):
        _system(address).put_file(str(file), address, callback=_moving())


def put_bytes(content: bytes, address: str) -> None:
    """Makes or replaces an object."""
    pace.move()
    with _told(address):
        _system(address).pipe_file(address, content)


def create(content: bytes, address: str) -> bool:
    """Makes an object where there is none; whether it did.

    Of several that try at once, on whatever machines, one does.
    """
    with _told(address):
        try:
            _system(address).pipe_file(address, content, mode="create")
        except FileExistsError:
            return False
    return True


def get(address: str, file: Path) -> os.stat_result | None:
    """Brings an object to a file, which is whole or not there.

    Returns:
      What the system says of the file as it came; None where there is no such object any more.
    """
    part = file.with_name(f".{file.name}{lock.PARTIAL}{uuid4().hex}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as ours:  # by whose lock others tell it from what a killed process has left
            lock.take(ours.fileno())
            with _told(address):
                try:
                    _system(address).get_file(address, str(part), callback=_moving())
                except FileNotFoundError:
                    if about(address) is None:
                        return None
                    raise
            found = part.stat()
            part.replace(file)
        return found
    finally:
        part.unlink(missing_ok=True)


def read(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or a range of them.

    Args:
      address: of the object.
      start, end: of the range.
    """
    pace.move()
    with _told(address):
        if start is None or end is None or end - start <= _RANGE_BYTES:
            return _system(address).cat_file(address, start=start, end=end)
        starts = list(range(start, end, _RANGE_BYTES))
        ends = [*starts[1:], end]
        return b"".join(_system(address).cat_ranges([address] * len(starts), starts, ends, on_error="raise"))


def sha256(address: str) -> str:
    """Of an object's bytes, all of which are read."""
    found, size = hashlib.sha256(), about(address)
    if size is None:
        raise UserError(f"no file {address}; check the path.")
    for start in range(0, size.size, _BLOCK_BYTES):
        found.update(read(address, start, min(start + _BLOCK_BYTES, size.size)))
    return found.hexdigest()


def about(address: str) -> Object | None:
    """What is known of an object; None where there is none."""
    with _told(address):
        try:
            found = _system(address).info(address)
        except FileNotFoundError:
            return None
    return None if found["type"] != "file" else _object(found)


def below(address: str) -> dict[str, Object]:
    """All objects of a folder, however deep, by their names from there; an object of just this name is under ``""``."""
    with _told(address):
        try:
            found = _system(address).find(address, detail=True)
        except FileNotFoundError:
            return {}
    head = len(address.rstrip("/").partition("://")[2])
    return {name[head:].lstrip("/"): _object(each) for name, each in found.items() if not name.endswith("/")}


def remove(address: str, names: Sequence[str]) -> None:
    """Removes objects, of which some may be gone already.

    Args:
      address: of the folder.
      names: from there; ``""`` is the address itself.
    """
    for name in names:
        pace.move()
        with _told(address):
            try:
                _system(address).rm_file(join(address, name) if name else address)
            except FileNotFoundError:
                continue


def check_writable(address: str) -> None:
    """Makes an object below an address, and removes it again.

    Raises:
      UserError: the bucket is not there, may not be written to or cannot be reached, or the library for it is not installed.
    """
    name = f".probe-{uuid4().hex}"
    put_bytes(b"", join(address, name))
    remove(address, [name])


def _moving() -> Any:
    """What a library calls along a long transfer, in a thread of its own."""
    from fsspec import Callback

    class Moving(Callback):
        def call(self, *_: Any, **__: Any) -> None:
            pace.move()

    return Callback() if pace.is_aside() else Moving()


def _object(found: dict[str, Any]) -> Object:
    tag = found.get("generation") or found.get("ETag") or found.get("etag") or found.get("mtime")
    return Object(int(found["size"] or 0), str(tag).strip('"'))


def _system(address: str) -> Any:
    return _opened(address.partition("://")[0])


@cache
def _opened(kind: str) -> Any:
    from fsspec import config, filesystem

    try:
        import aiohttp

        silent = aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_SECONDS)
        # For the instances that other libraries open as well, by their own means.
        config.conf.setdefault("gs", {}).update(use_listings_cache=False, session_kwargs={"timeout": silent})
        config.conf.setdefault("s3", {}).update(use_listings_cache=False)
        return filesystem(kind)
    except ImportError as error:
        raise UserError(
            f"{kind}:// needs the package {_LIBRARIES[kind]}, which is not installed: pip install 'immunax[bucket]'."
        ) from error


def prepare(address: str) -> None:
    """Readies libraries that open a place in a bucket by their own means.

    Raises:
      UserError: the package for it is not installed.
    """
    with _told(address):
        _system(address)


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except (UserError, FileExistsError):
        raise
    except Exception as error:  # of gcsfs, s3fs, aiohttp, google-auth and botocore, which share no class
        mistake = mistake_of(address, error)
        if mistake is None:
            raise
        raise mistake from error


def mistake_of(address: str, error: BaseException | None) -> UserError | None:
    """What a user is told of an error that a client library raised; None where it is none of the bucket's.

    Args:
      address: of what was read or written.
      error: with its causes.
    """
    while error is not None:
        if isinstance(error, UserError):
            return error
        name = f"{type(error).__module__}.{type(error).__qualname__}".lower()
        text = " ".join(f"{name} {error}".lower().split())
        bucket = "/".join(address.split("/")[:3])
        if isinstance(error, FileNotFoundError) or "nosuchbucket" in text or "bucket does not exist" in text:
            return UserError(
                f"cannot reach {address}: there is no bucket {bucket}, or no such object in it; check the name."
            )
        if any(word in text for word in _NO_KEYS):
            return RefusedError(
                f"cannot use {address}: no credentials for {bucket} ({_cause(error)}); {_LOG_IN[bucket[:2]]}."
            )
        if isinstance(error, PermissionError) or any(word in text for word in _DENIED):
            return RefusedError(
                f"cannot use {address}: permission denied ({_cause(error)}); give this account the right to read, write, list "
                f"and delete objects of {bucket}, or choose another folder."
            )
        if isinstance(error, (ConnectionError, TimeoutError)) or any(word in name for word in ("connect", "timeout")):
            return UnreachableError(f"cannot reach {address}: no connection ({_cause(error)}); check the network.")
        if any(word in text for word in _NO_NETWORK):
            return UnreachableError(f"cannot reach {address}: no connection ({_cause(error)}); check the network.")
        error = error.__cause__ or error.__context__
    return None


_LOG_IN = {
    "gs": "run: gcloud auth application-default login, or give the machine a service account",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
}


def _cause(error: BaseException, most: int = 120) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"

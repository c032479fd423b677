"""The local side of places in a bucket: what is read there is brought first, what is written here is sent when it is whole.

A folder of a bucket is whole by a marker that is put last of all, and taken away first where the folder is replaced: nothing
there is ever renamed or locked. Paths that stand for no address (:mod:`~immunax.runtime.stand_ins`) are left as they are.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from immunax.runtime import bucket, lock, pace, stand_ins
from immunax.runtime.bucket import Object
from immunax.runtime.errors import UserError

WHOLE, TORN = ".complete", ".incomplete"
"""Objects of a folder: its files with sizes and SHA-256, put last; and what stands there until it is."""

_MARKERS = (WHOLE, "commit_success.txt")
"""Ours, and that of Orbax."""
SENT_APART = ("checkpoints", "model", "start", "adapter")
"""Folders of runs that whoever writes them sends when they are whole, and that are read straight from a bucket."""

_SEEN = "seen"
_OWN = (".lock", ".lease", WHOLE, TORN)
_AT_ONCE = 16

Wanted = Callable[[str], bool]
"""Whether a file is to be brought, by its name from the folder."""


def local(path: Path | str) -> Path:
    """The path on this machine of a path or of an address, where it need not have been brought to yet.

    Args:
      path: as a user gave it.

    Raises:
      UserError: it is an address, and of no place in a bucket.
    """
    if bucket.is_address(path):
        return stand_ins.of(str(path).rstrip("/"))
    return Path(path).expanduser()


def brought(path: Path | str) -> Path:
    """:func:`local` of a file or a folder, all of it brought here."""
    return fetch(local(path))


def named(path: Path) -> str:
    """What a user calls a path: the address that it stands for, or itself."""
    return stand_ins.address(path) or str(path)


def is_mirrored(path: Path) -> bool:
    """Whether a path stands for a place in a bucket."""
    return stand_ins.address(path) is not None


def everything(name: str) -> bool:
    """Wants every file."""
    return True


def fetch(path: Path, wanted: Wanted = everything) -> Path:
    """Brings a file or a folder, unless what is here is the same; what is here and no longer there, is removed.

    Args:
      path: of which only one that stands for an address is brought.
      wanted: which files of a folder; all others stay as they are.

    Returns:
      The path.

    Raises:
      UserError: the bucket is not there, refuses, or cannot be reached.
    """
    address = stand_ins.address(path)
    if address is None:
        return path
    there = {name: each for name, each in bucket.below(address).items() if not _own(name) and wanted(name)}

    def bring(name: str) -> None:
        file = path / name if name else path
        if _seen(file) != [there[name].tag, *_stamp(file)]:
            found = bucket.get(bucket.join(address, name) if name else address, file)
            if found is None:  # gone since it was listed
                file.unlink(missing_ok=True)
            else:  # of the file that came: another process may have brought another one since
                _note(file, there[name].tag, _of(found))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(bring, there))
    if not there and path.is_file():
        path.unlink()
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name not in there and not _own(name) and wanted(name):
            file.unlink(missing_ok=True)
    return path


def names(path: Path) -> dict[str, Object]:
    """The files of a folder, however deep, by their names from there; of one in a bucket without those that are not ours.

    Args:
      path: that stands for an address.
    """
    address = stand_ins.address(path)
    assert address is not None
    return {name: each for name, each in bucket.below(address).items() if name == TORN or not _own(name)}


def entries(folder: Path) -> set[str]:
    """The names of what lies in a folder, files and folders; those of one in a bucket as it has them."""
    if is_mirrored(folder):
        return {name.partition("/")[0] for name in names(folder)}
    return {each.name for each in folder.iterdir()} if folder.is_dir() else set()


def put(file: Path) -> None:
    """Sends a file that is whole here, where it stands for an object."""
    address = stand_ins.address(file)
    if address is not None:
        stamp = _stamp(file)
        bucket.put(file, address)
        _note(file, None, stamp)


def settle(folder: Path) -> None:
    """Sends every file of a run's folder that has changed since it was sent or brought.

    Args:
      folder: of the run, whose :data:`SENT_APART` are left out.
    """
    if is_mirrored(folder):
        for file in sorted(_files(folder)):
            name = file.relative_to(folder).as_posix()
            if not _own(name) and name.partition("/")[0] not in SENT_APART and _seen(file)[1:] != _stamp(file):
                put(file)


def remove(path: Path) -> None:
    """Removes a file or a folder, here and in its bucket, of a folder there the markers first."""
    address = stand_ins.address(path)
    if address is not None:
        found = bucket.below(address)
        bucket.remove(address, sorted(found, key=lambda name: name.rpartition("/")[2] not in _MARKERS))
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():  # a part of a path that is a file has nothing below it
        path.unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Whether a folder that we write as one is there, all of it."""
    address = stand_ins.address(folder)
    return folder.is_dir() if address is None else bucket.about(bucket.join(address, WHOLE)) is not None


def is_there(folder: Path) -> bool:
    """Whether a folder holds anything, whole or not; one on this machine may be empty."""
    address = stand_ins.address(folder)
    return folder.is_dir() if address is None else bool(bucket.below(address))


def check_not_torn(folder: Path) -> None:
    """Refuses a folder of a bucket that somebody has begun to write, and not ended.

    Raises:
      UserError: it is one.
    """
    address = stand_ins.address(folder)
    if address is not None and bucket.about(bucket.join(address, TORN)) is not None and not is_whole(folder):
        raise UserError(f"{address} is half written: let what writes it end, or start it again.")


@contextmanager
def sending(folder: Path) -> Iterator[Path]:
    """An empty folder on this machine, whose files are sent when the block ends without an exception, and then are gone here.

    Args:
      folder: that stands for an address.
    """
    with making(folder) as temp:
        yield temp
        begin(folder)
        end(folder, send(temp, folder))


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """An empty folder on this machine of the same name, for the length of the block."""
    stand_ins.root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=stand_ins.root()) as place:
        temp = Path(place) / folder.name
        temp.mkdir()
        yield temp


def begin(folder: Path) -> None:
    """Says in a bucket that a folder is no longer whole."""
    address = _address(folder)
    bucket.put_bytes(b"", bucket.join(address, TORN))
    bucket.remove(address, [WHOLE])


def send(temp: Path, folder: Path) -> dict[str, Any]:
    """Sends the files of a folder to another one's address.

    Args:
      temp: here.
      folder: that stands for the address.

    Returns:
      Size and SHA-256 by name.
    """
    address, sent = _address(folder), {}
    for file in sorted(_files(temp)):
        name = file.relative_to(temp).as_posix()
        pace.move()
        with file.open("rb") as content:
            sent[name] = {"size": file.stat().st_size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}
        bucket.put(file, bucket.join(address, name))
    return sent


def end(folder: Path, sent: Mapping[str, Any]) -> None:
    """Removes what else lies in a folder of a bucket, and says there that it is whole.

    Args:
      folder: that stands for an address.
      sent: all files, from :func:`send`.
    """
    address = _address(folder)
    bucket.remove(address, [name for name in bucket.below(address) if name not in sent and not _own(name)])
    bucket.put_bytes(json.dumps({"files": dict(sent)}, indent=1).encode(), bucket.join(address, WHOLE))
    bucket.remove(address, [TORN])


def _address(path: Path) -> str:
    address = stand_ins.address(path)
    assert address is not None
    return address


def _own(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last in _OWN or last.startswith(".probe-") or lock.PARTIAL in name


def _files(folder: Path) -> Iterable[Path]:
    return [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []


def _stamp(file: Path) -> list[int]:
    try:
        found = file.stat()
    except OSError:
        return []
    return _of(found)


def _of(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns]


def _note(file: Path, tag: str | None, stamp: list[int]) -> None:
    note = _note_of(file)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps([tag, *stamp]))


def _seen(file: Path) -> list[Any]:
    """What was known of a file when it was brought or sent last: its tag, then as :func:`_stamp`."""
    try:
        found = json.loads(_note_of(file).read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _note_of(file: Path) -> Path:
    # Beside the name of a folder no file may stand.
    return stand_ins.root() / _SEEN / file.relative_to(stand_ins.root()).parent / f"{file.name}.json"

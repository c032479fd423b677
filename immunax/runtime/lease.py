"""Mutual exclusion in a bucket, which has no locks: an object that one process makes, renews, and removes at the end.

Nobody can tell from afar whether the one that made it still lives, but for another process of the same machine that holds the
lock there. Otherwise a lease that is not renewed for some time has lapsed.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import getnode, uuid4

from immunax.runtime import bucket, console, pace, signals, stand_ins
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_LOST

FILE = ".lease"
SECONDS = 60.0
"""After which a lease that was not renewed has lapsed; it is renewed three times as often."""

_LOOK_SECONDS = 2.0


@contextmanager
def held(folder: str, wait_seconds: float = SECONDS) -> Iterator[bool]:
    """Holds the lease of a folder for the length of a block.

    Args:
      folder: its address; whoever comes here holds the lock of this machine for it.
      wait_seconds: for one of another machine to lapse, as it does where that machine was taken away.

    Yields:
      Whether it is held: False where another machine has it and renews it.
    """
    address, name = bucket.join(folder, FILE), uuid4().hex
    if not _taken(address, name, wait_seconds):
        yield False
        return
    ended = threading.Event()
    thread = threading.Thread(target=_renewing, args=(address, name, ended), daemon=True, name="immunax_lease")
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        with suppress(UserError):  # it lapses by itself
            if _is_ours(address, name):
                bucket.remove(folder, [FILE])


def is_held(folder: str) -> bool:
    """Whether somebody holds the lease of a folder and has renewed it lately, by the clocks of both machines."""
    try:
        said = _read(bucket.join(folder, FILE))
    except UserError:
        return False
    return said is not None and time.time() - said["at"] < SECONDS


def _taken(address: str, name: str, wait_seconds: float) -> bool:
    first, since, told = None, time.monotonic(), False
    while not bucket.create(_content(name), address):
        said = _read(address)
        if said is None:  # it has just been removed
            continue
        # Of one's own machine the lock has told already that the other one is gone.
        lapsed = said["host"] == _host() or time.monotonic() - since > wait_seconds
        if said != first:
            if first is not None and said["host"] != _host():
                return False
            first, since = said, time.monotonic()
        if lapsed:
            bucket.remove(address, [""])
            continue
        if not told:
            told = True
            console.note(
                f"{address} is held by {said['host'].partition(' ')[0]}: waiting {wait_seconds:g} s whether it is renewed"
            )
        time.sleep(min(_LOOK_SECONDS, wait_seconds / 4))
    # Two that both found it lapsed may have removed one another's.
    return (_read(address) or {}).get("name") == name


def _renewing(address: str, name: str, ended: threading.Event) -> None:
    pace.aside()
    while not ended.wait(SECONDS / 3):
        with suppress(UserError):  # the next time
            if not _is_ours(address, name):
                say(f"error: {address} has lapsed and another process has taken it: this one ends", error=True)
                signals.leave(EXIT_LOST)
            bucket.put_bytes(_content(name), address)


def _is_ours(address: str, name: str) -> bool:
    """Whether nobody else has the lease; one that is gone is anybody's."""
    said = _read(address)
    return said is None or said["name"] == name


def _content(name: str) -> bytes:
    return json.dumps({"name": name, "host": _host(), "at": time.time()}).encode()


def _host() -> str:
    # Of the folder too in which that machine has its locks.
    return f"{socket.gethostname()} {getnode():x} {stand_ins.root()}"


def _read(address: str) -> dict | None:
    if bucket.about(address) is None:
        return None
    try:
        found = bucket.read(address)
    except UserError:
        if bucket.about(address) is None:
            return None
        raise
    with suppress(ValueError):
        said = json.loads(found)
        if isinstance(said, dict) and {"name", "host", "at"} <= said.keys():
            return said
    return {"name": "", "host": "?", "at": 0.0}

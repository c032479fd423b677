"""Every process of a job tells the others that it lives and how far it is; where one does not, all end in one line.

A process that is killed leaves the others in a collective that fails with a page of a library's words, or never ends.
"""

import ctypes
import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import jax

from immunax.runtime import pace, signals
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_LOST
from immunax.runtime.meeting import called
from immunax.runtime.pace import Pace

_ALIVE, _SAID, _LEFT = "immunax/alive/", "immunax/said/", "left"
_SHARE = 10  # how often within its time a process tells that it lives
_MOST_SECONDS = 1.0
_GRACE_SECONDS = 3.0  # for the others to read that process 0, through which all talk, leaves

_NAMED = 8

_watch: "Watch | None" = None
_starting: str | None = None


def patience() -> float:
    """Seconds that a process may be silent, or behind the others; infinity where nobody watches."""
    return math.inf if _watch is None else _watch.seconds


def agreed(status: int) -> None:
    """Lets this process close what is open though another one leaves before it: all of them know that they end, and how.

    Args:
      status: that all end with.
    """
    if _watch is not None:
        _watch.agreed = status


def first_says(text: str) -> bool:
    """Whether this process is to say something that all may have met: process 0 does, another one where that has not.

    Args:
      text: the line.
    """
    return _watch is None or _watch.first_says(text)


@contextmanager
def losses() -> Iterator[None]:
    """Within the block an error that another process's end may have brought about waits for what that is told to be."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            _lost()
        raise


def stop() -> None:
    """Ends the watch of this process, where there is one: the job is done, and nothing that happens now is of it.

    A thread that is within a library's C++ when the interpreter goes away is ended there, which C++ takes for an abort.
    """
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None
        signals.tells(None)
        _system.signal(signal.SIGABRT, ctypes.c_void_p(signal.SIG_DFL))


def _lost() -> None:
    """Waits for the end that a watch brings, and returns where it finds nobody missing."""
    if _watch is not None:
        time.sleep(_watch.seconds + _GRACE_SECONDS)


@contextmanager
def starting(told: str) -> Iterator[None]:
    """Within the block, in which JAX starts and nobody watches yet, its abort ends the process as one that has lost another.

    Args:
      told: what is said then.
    """
    global _starting
    _starting = told
    _hold_aborts()
    try:
        yield
    finally:
        _starting = None


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    if _starting is not None:
        say(f"error: {_starting}", error=True)
        signals.end(EXIT_LOST)
    _lost()
    _system.signal(number, ctypes.c_void_p(signal.SIG_DFL))


_system = ctypes.CDLL(None)
_system.signal.restype = ctypes.c_void_p


def _hold_aborts() -> None:
    """Lets a watch end the process that a library aborts.

    JAX does so as soon as process 0, which has its service, is gone, and gloo as soon as a line breaks: neither says which
    process it was. Python's own handlers would never run. Set again and again, as a library may set its own when it is loaded.
    """
    _system.signal(signal.SIGABRT, _aborted)


class Watch:
    """Two threads: one tells and asks through the service of process 0, the other judges, also where that service is silent.

    Args:
      client: of JAX's service.
      index: of this process.
      hosts: of all, by index.
      seconds: that one may be silent, or behind the others.
      stall: seconds in which none may go on; None for ever.

    Attributes:
      agreed: the status that all are known to end with; None while they are at work.
    """

    def __init__(
        self, client: Any, index: int, hosts: Sequence[str], seconds: float, stall: float | None = None
    ) -> None:
        self.seconds, self._stall = seconds, math.inf if stall is None else stall
        self._client, self._index, self._hosts = client, index, hosts
        self._every = min(seconds / _SHARE, _MOST_SECONDS)
        now = time.monotonic()
        self._said = dict.fromkeys(range(len(hosts)), "")
        self._heard = dict.fromkeys(self._said, now)
        self._paces = dict.fromkeys(self._said, Pace())
        self._behind: dict[int, float] = {}
        self._last, self._went_on = self._all_paces(), now
        self._asked = now
        self._left, self._beat = False, 0
        self.agreed: int | None = None
        self._gone: dict[int, float] = {}
        # A beat under way would be heard behind the farewell; a signal may come within it.
        self._saying = threading.RLock()
        self._over, self._threads = threading.Event(), []

    def start(self) -> None:
        """Starts the threads."""
        global _watch
        _watch = self
        signals.tells(self.leave)
        for work in (self._telling, self._judging):
            thread = threading.Thread(target=work, daemon=True, name=f"immunax{work.__name__}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ends the threads; returns when they have."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def first_says(self, text: str) -> bool:
        """See the function of this name."""
        key = f"{_SAID}{hashlib.sha256(text.encode()).hexdigest()}"
        if self._index == 0:
            with suppress(Exception):
                self._client.key_value_set(key, "", allow_overwrite=True)
            return True
        try:
            self._client.blocking_key_value_get(key, int(1000 * _GRACE_SECONDS))
        except Exception:  # it has not, or is gone
            return True
        return False

    def leave(self, status: int) -> None:
        """Tells the others that this process ends."""
        with suppress(Exception), self._saying:  # of a service that is gone there is no one class
            self._left = True
            self._put(f"{_LEFT} {status}")
        if self._index == 0:
            time.sleep(_GRACE_SECONDS)

    def _put(self, text: str) -> None:
        self._client.key_value_set(f"{_ALIVE}{self._index}", text, allow_overwrite=True)

    def _telling(self) -> None:
        while not self._over.is_set():
            _hold_aborts()
            self._tell()
            self._over.wait(self._every)

    def _judging(self) -> None:
        while not self._over.wait(self._every):
            self._judge()

    def round(self) -> None:
        """What the threads do, once."""
        self._tell()
        self._judge()

    def _tell(self) -> None:
        with suppress(Exception):
            with self._saying:
                if not self._left:
                    self._beat += 1
                    self._put(" ".join(map(str, (self._beat, *pace.now()))))
            found = self._client.key_value_dir_get(_ALIVE)
            self._asked = time.monotonic()
            for key, text in found:
                self._note(int(key.rpartition("/")[2]), text)

    def _note(self, index: int, text: str) -> None:
        if text == self._said[index] or index == self._index:
            return
        first, *numbers = text.split()
        if first == _LEFT:
            # Process 0 alone, which writes what the others do not, and through which all talk.
            if self._index or int(numbers[0]) != self.agreed:
                signals.end(int(numbers[0]))
            self._gone.setdefault(index, time.monotonic())
            return
        self._said[index], self._heard[index] = text, time.monotonic()
        found = Pace(*map(int, numbers))
        if found != self._paces[index]:
            self._paces[index] = found
            self._behind.pop(index, None)

    def _judge(self) -> None:
        now = time.monotonic()
        if now - self._asked > self.seconds:
            # Through it all have talked: nobody knows who else is left to say so.
            self._lose([0], "is gone or does not answer", first=True)
        if self.agreed is not None and any(now - since > self.seconds for since in self._gone.values()):
            signals.end(self.agreed)
        others = [each for each in self._said if each != self._index and each not in self._gone]
        if silent := [each for each in others if now - self._heard[each] > self.seconds]:
            self._lose(silent, f"has not answered for {self.seconds:g} s")
        for index in others:
            # A step may take longer than that; whoever is behind in it is so for a moment.
            since = self._behind.setdefault(index, now) if self._paces[index].work < pace.now().work else now
            if now - since > self.seconds:
                self._lose([index], f"is behind the others and has not gone on for {self.seconds:g} s")
        self._judge_all(now)

    def _judge_all(self, now: float) -> None:
        if self._all_paces() != self._last:
            self._last, self._went_on = self._all_paces(), now
        elif now - self._went_on > self._stall:
            if self._index == 0:
                told = f"none of the {len(self._hosts)} processes has gone on for {self._stall:g} s: the job ends; start it again"
                more = "with a larger distributed.stall where one of its programs takes so long"
                say(f"error: distributed: {told}, {more}", error=True)
            signals.end(EXIT_LOST)

    def _all_paces(self) -> tuple[Pace, ...]:
        return pace.now(), *self._paces.values()

    def _lose(self, lost: Sequence[int], why: str, first: bool = False) -> None:
        if first or self._index == min(set(self._said) - set(lost)):
            told = "; ".join(f"{called(each, self._hosts[each])} {why}" for each in lost[:_NAMED])
            more = f"; and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            say(f"error: {told}{more}: the job ends; start it again", error=True)
        signals.end(EXIT_LOST)

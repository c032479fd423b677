"""Work on strangers' files that nothing in this process can bound, done in a child process that can be stopped.

A template loops for ever, a table unfolds to all of the memory, a parser written in another language aborts: no exception
tells of any of these. So they run where the kernel holds limits of memory and of processor time, and where the end of a process
is one line. A child is kept for further work, and costs a message each way.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import worker
from immunax.runtime.untrusted.worker import DATA, END, FAULT, HEAD

_READ = 1 << 16


class FaultError(Exception):
    """Why a child gave no answer, in a few words."""


@dataclass(frozen=True)
class Limits:
    """What one piece of work may take.

    Attributes:
      memory: bytes of the child's address space.
      seconds: of processor time for each part of the answer.
      part: bytes of each part.
      patience: seconds on the clock for each part, for a child that waits rather than works.
    """

    memory: int
    seconds: float
    part: int
    patience: float = 120.0


@dataclass(frozen=True)
class Confined:
    """A program that answers requests in children of its own.

    Attributes:
      program: a module with ``answer(request)``, which yields the parts of an answer, and raises ``ValueError`` or another
        exception where there is none.
      limits: of each answer.
    """

    program: str
    limits: Limits
    _idle: list["_Child"] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        atexit.register(self.stop)
        # A process that was forked off would read its parent's answers.
        os.register_at_fork(after_in_child=self._idle.clear)

    def ask(self, request: Any) -> Iterator[bytes]:
        """The parts of an answer, each as soon as it is there.

        Args:
          request: JSON-able.

        Raises:
          FaultError: the program refuses, or passes a limit.
          UserError: no child can be started.
        """
        child = self._idle.pop() if self._idle else _start(self.program, self.limits)
        done = False
        try:
            yield from child.ask(request, self.limits)
            done = True
        except _RefusedError as error:
            done = True
            raise FaultError(str(error)) from error
        finally:
            if done:
                self._idle.append(child)
            else:
                child.stop()

    def stop(self) -> None:
        """Ends the children."""
        while self._idle:
            self._idle.pop().stop()


class _RefusedError(Exception):
    """The program's own refusal, after which its child goes on."""


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"

    def ask(self, request: Any, limits: Limits) -> Iterator[bytes]:
        text = json.dumps(request).encode()
        try:
            self._input.write(HEAD.pack(DATA, len(text)) + text)
            self._input.flush()
        except OSError:
            raise self._ended(limits) from None
        while True:
            kind, size = HEAD.unpack(self._receive(HEAD.size, limits))
            if size > limits.part:
                raise FaultError(f"it makes more than {limits.part} bytes")
            body = self._receive(size, limits)
            if kind == END:
                return
            if kind == FAULT:
                raise _RefusedError(body.decode(errors="replace"))
            yield body

    def _receive(self, size: int, limits: Limits) -> bytes:
        parts, left, end = [], size, time.monotonic() + limits.patience
        while left:
            if not select.select([self._output], [], [], max(0.0, end - time.monotonic()))[0]:
                raise FaultError(f"it takes more than {limits.patience:.0f} seconds")
            part = os.read(self._output, min(left, _READ))
            if not part:
                raise self._ended(limits)
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _ended(self, limits: Limits) -> FaultError:
        status = self.process.wait()
        if status == -signal.SIGPROF:
            return FaultError(f"it takes more than {limits.seconds:g} seconds")
        return FaultError(f"it needs more than {limits.memory >> 20} MiB, or breaks its parser")

    @property
    def _input(self) -> Any:
        return self.process.stdin

    @property
    def _output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def stop(self) -> None:
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.wait()


def _start(program: str, limits: Limits) -> _Child:
    arguments = [program, str(limits.memory), str(limits.seconds), str(limits.part)]
    # What this process finds its modules in, and not the working folder: that may be a stranger's.
    places = os.pathsep.join(place for place in sys.path if place and place != os.getcwd())
    home = str(Path(worker.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([home, places])}
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            # An interrupt is for this process, which ends its children.
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"no process can be started to read files in ({error.strerror}); end some others.") from error
    return _Child(process)

"""What runs in a child process: one program, asked again and again under the limits of :mod:`.confined`.

It is started as a file, and imports what it runs before it takes limits on. A request is a frame, and an answer is frames up to
one that says that it ends, each headed by its kind and length. The kernel's timer of processor time ends the process whatever
code is running.
"""

import importlib
import json
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO

HEAD = struct.Struct("<BI")
DATA, END, FAULT = range(3)
_LONGEST = 300
"""Characters of a reason."""


def main() -> None:
    """Answers until nobody asks."""
    program, memory, seconds, part = sys.argv[1], *map(float, sys.argv[2:])
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever prints, in whichever language, must not write into the frames.
    os.dup2(2, 1)
    answer = importlib.import_module(program).answer
    # Whoever started this process may have given it less.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = int(memory) if hard == resource.RLIM_INFINITY else min(int(memory), hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while head := asked.read(HEAD.size):
        request = json.loads(asked.read(HEAD.unpack(head)[1]))
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            for body in answer(request):
                signal.setitimer(signal.ITIMER_PROF, 0)
                if len(body) > part:
                    raise ValueError(f"it makes more than {part:.0f} bytes")
                _send(answers, DATA, body)
                signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(answers, END, b"")
        except BaseException as error:  # of a stranger's template, or a panic of another language: anything
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(answers, FAULT, _reason(error).encode(errors="replace"))


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than it may have"
    if isinstance(error, RecursionError):
        return "it calls itself too often, a recursion without an end"
    try:
        return " ".join(str(error)[: 10 * _LONGEST].split())[:_LONGEST].rstrip(".") or type(error).__name__
    except Exception:
        return type(error).__name__


def _send(answers: BinaryIO, kind: int, body: bytes) -> None:
    answers.write(HEAD.pack(kind, len(body)) + body)
    answers.flush()


if __name__ == "__main__":
    main()

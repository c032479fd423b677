"""Runs commands in forks of a process that has imported them, which costs each of them its seconds of imports no more.

As a module, :class:`Commands`; as a program, the process that forks. A fork is as fresh as a process: no device is started
before (``test_importing_the_commands_starts_no_device``), and it reads its own variables, arguments and folder.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

MODULES = ("immunax.train", "immunax.attack", "immunax.certify", "immunax.verify", "immunax.compile")


class Commands:
    """A process that runs ``python -m immunax.MODULE`` as often as it is asked to; close it at the end."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, home: Path, environment: Mapping[str, str], module: str, *arguments: str) -> CompletedProcess:
        """One command in a folder, to its end."""
        out, err = home / "warm.out", home / "warm.err"
        asked = {"home": str(home), "environment": dict(environment), "module": module, "arguments": arguments}
        self._process.stdin.write(json.dumps({**asked, "out": str(out), "err": str(err)}) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())
        return CompletedProcess([module, *arguments], status, out.read_text(), err.read_text())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    for name in MODULES:
        __import__(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(home, environment, module, arguments, out, err) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(home)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [f"immunax.{module}", *arguments]
    sys.path[0] = home
    runpy.run_module(f"immunax.{module}", run_name="__main__", alter_sys=True)
    raise SystemExit


if __name__ == "__main__":
    _serve()

"""Programs outside, called by their exact arguments, or only printed."""

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from immunax.runtime.errors import UserError
from immunax.runtime.escaped import escaped, say
from tpu.mistakes import OutsideError

_TIMED_OUT = 124
_INSTALL = {
    "gcloud": "install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install, then: gcloud auth login",
    "kubectl": "gcloud components install kubectl gke-gcloud-auth-plugin",
    "xpk": "uv tool install xpk",
    "sbatch": "run this on a login node of the cluster",
    "ray": "uv tool install 'ray[default]'",
    "git": "install git; the code that runs is that of a commit",
}
_LONGEST_SECONDS = 3600.0
"""Of a call that is not followed; gcloud may wait for a machine that is gone."""
_QUOTED = 600
"""Characters of what a program says that are quoted."""


class Done(NamedTuple):
    """A program that has ended."""

    status: int
    out: str = ""
    err: str = ""

    @property
    def said(self) -> str:
        """What it has to say of its end: the last lines of its errors, which are nearest to the cause."""
        text = self.err.strip() or self.out.strip() or f"exit status {self.status}"
        start = text.rfind("ERROR:")
        return escaped(" ".join(text[max(start, 0) :].split()), _QUOTED)


class Calls:
    """Calls programs, or prints what it would call.

    Args:
      dry: print, and call none.
    """

    def __init__(self, dry: bool = False) -> None:
        self.dry = dry

    def ask(self, argv: Sequence[str], supposed: str = "", given: str | None = None) -> Done:
        """Runs a program to its end.

        Args:
          argv: the program and its arguments.
          supposed: what it is taken to answer where nothing is called.
          given: its standard input.

        Raises:
          UserError: there is no such program here.
        """
        if self.dry:
            self._print(argv)
            return Done(0, supposed)
        try:
            done = subprocess.run(
                argv,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LONGEST_SECONDS,
            )
        except FileNotFoundError as error:
            raise _absent(argv[0]) from error
        except subprocess.TimeoutExpired:
            return Done(_TIMED_OUT, err=f"no answer within {_LONGEST_SECONDS:g} s")
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, argv: Sequence[str], supposed: str = "", given: str | None = None) -> str:
        """Runs a program that has to succeed.

        Args:
          argv, supposed, given: see :meth:`ask`.

        Returns:
          Its standard output.

        Raises:
          OutsideError: it failed.
          UserError: there is no such program here.
        """
        done = self.ask(argv, supposed, given)
        if done.status:
            raise OutsideError(f"{' '.join(argv[:3])}: {done.said}")
        return done.out

    def follow(self, argv: Sequence[str], line: Callable[[str], None], supposed: str = "") -> int:
        """Runs a program and hands on its lines as they come.

        Args:
          argv: the program and its arguments.
          line: takes each line of its standard output, without its end; its errors go to ours.
          supposed: its lines where nothing is called.

        Returns:
          Its exit status.

        Raises:
          UserError: there is no such program here.
        """
        if self.dry:
            self._print(argv)
            for each in supposed.splitlines():
                line(each)
            return 0
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
            )
        except FileNotFoundError as error:
            raise _absent(argv[0]) from error
        with process:
            try:
                for each in process.stdout or ():
                    line(each.rstrip("\r\n"))
            except BaseException:
                process.terminate()
                raise
        return process.returncode

    def _print(self, argv: Sequence[str]) -> None:
        print(shlex.join(argv), flush=True)


def told(text: str) -> None:
    """Says how far the launcher is, in one line on standard error: standard output is the job's."""
    say(text, error=True)


def exported(variables: Mapping[str, str]) -> list[str]:
    """Environment variables as arguments, sorted by name."""
    return [f"{name}={value}" for name, value in sorted(variables.items())]


def _absent(program: str) -> UserError:
    return UserError(f"{program} is not on PATH: {_INSTALL.get(program, 'install it')}.")

"""The machines of a slice, over ssh: each gets the code, installs it and runs the command; the first one's log is ours."""

import re
import secrets
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from immunax.runtime.errors import UserError
from immunax.runtime.escaped import taking_all
from tpu import hints
from tpu.calls import Calls, told
from tpu.queued import Request
from tpu.source import Source

_TRIES = 3
# gcloud tries ten times, and without a limit each try would take minutes where the machine is gone.
_SSH = ("--ssh-flag=-o ServerAliveInterval=30", "--ssh-flag=-o ConnectTimeout=20")
_HOME = "immunax"
"""The folder on a machine, in the home of whoever logs in."""
_DONE = re.compile(r"immunax: (?:installed|started|running|left) (\d+)")
_REFUSED = re.compile(r"immunax: refused: (.*)")
LOST = None
"""Of a job whose end nobody has seen."""
BEGINS = -1
"""Of a job that its first machine starts again, as all have to."""
_BEGINS = re.compile(r"immunax: ended with \d+, starting again \(")


class Followed(NamedTuple):
    """What a log has come to.

    Attributes:
      status: of the command's end, ``LOST`` or ``BEGINS``.
      lines: of the log that are printed.
      given_up: whether its first machine has started the command again as often as it does.
    """

    status: int | None
    lines: int
    given_up: bool = False


class _BeginsError(Exception):
    """The first machine starts the job again."""


@dataclass(frozen=True)
class Hosts:
    """All machines of a queued resource.

    Attributes:
      calls: programs outside.
      request: whose they are.
      ssh: further flags for ``gcloud compute tpus tpu-vm ssh``, such as ``--tunnel-through-iap``.
    """

    calls: Calls
    request: Request
    ssh: tuple[str, ...] = ()

    def argv(self, node: str, workers: str, command: str) -> list[str]:
        """The call that runs a command on machines of one slice.

        Args:
          node: the slice.
          workers: ``all``, a number, or several of them with commas between.
          command: for the shell there.
        """
        place = (
            *self.request.place,
            f"--worker={workers}",
            "--quiet",
            *_SSH,
            *self.ssh,
        )
        return ["gcloud", "alpha", "compute", "tpus", "tpu-vm", "ssh", node, *place, f"--command={command}"]

    def install(self, source: Source, bucket: str) -> None:
        """Code and packages on every machine; what is there is kept.

        Args:
          source: the code.
          bucket: holds the cache of wheels.

        Raises:
          OutsideError: a machine did not say that it is done.
        """
        folder = f"{_HOME}/code-{source.commit[:12]}"
        fetch = (
            f"gcloud storage cp {shlex.quote(source.archive)} - | tar -xz -C {folder}.new && mv {folder}.new {folder}"
        )
        fresh = f"rm -rf {folder}.new && mkdir -p {folder}.new && {fetch}"
        install = shlex.join(["bash", f"{folder}/tpu/start.sh", "install", f"{bucket}/wheels"])
        self._each(f"set -o pipefail; {{ test -d {folder} || {{ {fresh}; }}; }} && {install}", "install")

    def start(self, source: Source, command: Sequence[str], variables: Iterable[str]) -> None:
        """Starts the command on every machine, where it does not run yet.

        Args:
          source: the code.
          command: its arguments.
          variables: ``NAME=VALUE`` each, of its environment.

        Raises:
          OutsideError: a machine did not say that it runs.
          UserError: another command runs there.
        """
        self._each(self._script(source, "run", *variables, "--", *command), "start")

    def restart(self, source: Source, command: Sequence[str], variables: Iterable[str]) -> None:
        """Starts the command where it is gone with no end of its own; see :meth:`start`."""
        self._each(self._script(source, "rerun", *variables, "--", *command), "start again")

    def follow(self, source: Source | None, seen: int) -> Followed:
        """Prints the log of the first machine until the command ends there, or the connection is lost.

        Args:
          source: the code; None for the newest there.
          seen: lines of the log that were printed before.
        """
        mark, status, lines, is_new, given_up = secrets.token_hex(8), LOST, seen, False, False
        ended = re.compile(rf"immunax: {mark} ended (\d+)( given up)?")
        out = taking_all(sys.stdout)

        def line(text: str) -> None:
            nonlocal status, lines, is_new, given_up
            found, (number, tab, said) = ended.fullmatch(text), text.partition("\t")
            if found:
                status, given_up = int(found[1]), found[2] is not None
            # gcloud itself connects again, and then begins anew.
            elif tab and number.isdecimal() and int(number) > lines:
                lines = int(number)
                print(said, file=out, flush=True)
                if is_new and source is not None and _BEGINS.match(said):
                    raise _BeginsError
            elif text == f"immunax: {mark} now":
                is_new = True

        command = self._script(source, "follow", str(seen + 1), mark)
        try:
            self.calls.follow(self.argv(self.request.nodes[0], "0", command), line, f"immunax: {mark} ended 0")
        except _BeginsError:
            return Followed(BEGINS, lines)
        return Followed(status, lines, given_up)

    def ask(self, what: str) -> None:
        """Prints what every machine says of its command, or ends the command there.

        Args:
          what: ``state`` or ``stop``.

        Raises:
          OutsideError: a machine does not answer.
        """
        for node in self.request.nodes:
            out = self.calls.must(self.argv(node, "all", self._script(None, what)))
            for each in out.splitlines():
                print(f"{node}: {each}", file=taking_all(sys.stdout))

    def _script(self, source: Source | None, *words: str) -> str:
        if source is None:
            newest = f"newest=$(ls -td {_HOME}/code-*/ 2>/dev/null | head -1)"
            there = 'test -n "$newest" || exec echo nothing has run here'
            return f'{newest}; {there}; bash "${{newest}}tpu/start.sh" {shlex.join(words)}'
        return shlex.join(["bash", f"{_HOME}/code-{source.commit[:12]}/tpu/start.sh", *words])

    def _each(self, command: str, what: str) -> None:
        machines = self.request.shape.machines
        for node in self.request.nodes:
            told(f"{what} on {node}, machines 0 to {machines - 1}")
            missing, said = set(range(machines)), ""
            for _ in range(_TRIES):
                workers = "all" if len(missing) == machines else ",".join(map(str, sorted(missing)))
                supposed = "\n".join(f"immunax: installed {worker}" for worker in missing)
                done = self.calls.ask(self.argv(node, workers, command), supposed)
                refused = _REFUSED.search(done.out)
                if refused:
                    raise UserError(f"{what} on {node}: {refused[1]}")
                missing -= {int(each) for each in _DONE.findall(done.out)}
                if not missing:
                    break
                said = done.said
                told(f"{what}: no word of worker {_named(missing)} of {node}, asking again")
            if missing:
                failed = f"{what} on {node}: worker {_named(missing)} of {machines} did not do it"
                raise hints.outside(failed, said, self.request)


def _named(workers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(workers)))

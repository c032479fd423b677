"""One job on one queued resource, from the request to its end: what is taken away is asked for again, and goes on."""

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from immunax.runtime.errors import UserError
from tpu import hints, queued
from tpu.calls import Calls, told
from tpu.hosts import BEGINS, LOST, Followed, Hosts
from tpu.mistakes import AGAIN, OutsideError
from tpu.patience import Patience
from tpu.queued import ABSENT, ACTIVE, FAILED, SUSPENDED, Found, Request
from tpu.source import Source
from tpu.standing import Standing

_LASTING_SECONDS = 6 * 3600.0
"""A start that is lost behind more, with no word that its machines gave up, has been of use."""


class Tending:
    """Has a queued resource, and a job on it.

    Args:
      calls: programs outside.
      request: what to ask for.
      job: its label: a digest of the command, or any other word.
      standing: is told what is asked for.
      what: the resource is, with its price, for a line.
      patience: with all of it.
    """

    def __init__(
        self, calls: Calls, request: Request, job: str, standing: Standing, what: str, patience: Patience
    ) -> None:
        self._calls, self._request, self._job = calls, request, job
        self._standing, self._what, self._patience = standing, what, patience
        self._said = ""
        self._failures = 0
        self._has_answered = False

    def had(self) -> None:
        """Waits until the slice is there, asking for it where nobody has; one that failed or was taken is asked for anew.

        Raises:
          UserError: one of this name is there, for another job or of another type.
          OutsideError: the service refuses, or fails again and again.
        """
        supposed = ABSENT
        while True:
            found = self._described(supposed)
            supposed = ACTIVE
            if found.state == ACTIVE:
                self._failures = 0
                return
            try:
                if found.state == ABSENT:
                    self._create()
                    continue
                if found.state in (FAILED, SUSPENDED):
                    self._replaced(found)
            except OutsideError as error:
                self._borne(error)
            self._patience.sleep(self._patience.poll)

    def run(self, hosts: Hosts, source: Source, bucket: str, command: Sequence[str], variables: Sequence[str]) -> int:
        """Runs a command to its end, through preemptions.

        Args:
          hosts: of the resource.
          source: the code.
          bucket: holds the cache of wheels.
          command: its arguments.
          variables: ``NAME=VALUE`` each.

        Returns:
          Its exit status; one of ``AGAIN`` where its machines have given up ``tries`` times in a row, or have lost it so often
          within hours.

        Raises:
          UserError, OutsideError: see :meth:`had`.
        """
        silent = ended = 0
        begun = time.monotonic()
        while True:
            self.had()
            try:
                hosts.install(source, bucket)
                hosts.start(source, command, variables)
                begun = time.monotonic()
                end = self._followed(hosts, source, lambda: hosts.restart(source, command, variables))
            except OutsideError as error:
                if self._described().state == ACTIVE:
                    silent += 1
                    if error.hopeless or silent >= self._patience.tries:
                        raise
                told(str(error))
                end = Followed(LOST, 0)
            if end.status is not None:
                if end.status not in AGAIN:
                    return end.status
                # Machines that gave up have tried long enough themselves, however long that took: a slice is paid for.
                is_new = time.monotonic() - begun > _LASTING_SECONDS or self._described().state != ACTIVE
                ended = 0 if is_new and not end.given_up else ended + 1
                if ended >= self._patience.tries:
                    return end.status
                told(f"the command ended with {end.status}: it is started again")
            silent = 0 if end.lines else silent
            self._patience.sleep(self._patience.poll)

    def deleted(self) -> None:
        """Gives the slice back.

        Raises:
          OutsideError: it may stand still.
        """
        told(f"deleting {self._request.name}")
        self._patience.answered(lambda: queued.delete(self._calls, self._request), through_outage=True)
        self._standing.gone(self._request.name)

    def _followed(self, hosts: Hosts, source: Source, restart: Callable[[], None]) -> Followed:
        """The job's end, through connections that are cut, as long as the slice is there.

        Args:
          hosts, source: of the job.
          restart: starts it where it is gone, for a machine that went down does not begin again by itself.
        """
        seen, cuts = 0, 0
        while True:
            end = hosts.follow(source, seen)
            if end.status == BEGINS:
                seen, cuts = end.lines, 0
                try:
                    restart()
                except OutsideError as error:  # a machine on its way up: the others wait for it, and begin again
                    told(str(error))
                continue
            if end.status is not LOST or self._described().state != ACTIVE:
                return end
            cuts = 0 if end.lines > seen else cuts + 1
            if cuts >= self._patience.tries:
                raise OutsideError(f"{self._request.name}: its first machine does not say how the command stands.")
            told("the connection to the log was cut; the command goes on, connecting again")
            seen = end.lines
            self._patience.sleep(self._patience.poll)

    def _described(self, supposed: str = ACTIVE) -> Found:
        # A service that has answered will again; until then what it was asked for may stand, billed, with nobody to give it back.
        found = self._patience.answered(
            lambda: queued.describe(self._calls, self._request, supposed), through_outage=self._has_answered
        )
        self._has_answered = True
        if found.state == ABSENT:
            self._standing.gone(self._request.name)
        else:
            self._check_ours(found)
            self._standing.may(self._request.name, f"{self._what} ({found.state})", self._request.deletion)
        if found.state != self._said:
            self._said = found.state
            told(
                f"{self._request.name}: {found.state.lower().replace('_', ' ')}{found.message and f' ({found.message})'}"
            )
        return found

    def _check_ours(self, found: Found) -> None:
        name, shape = self._request.name, self._request.shape
        if found.type not in (None, shape.type):
            raise UserError(f"{name} is there already, of type {found.type}, not {shape.type}: choose another name.")
        if found.job not in (None, queued.ANY_JOB, self._job):
            raise UserError(
                f"{name} is there already, for another command: choose another name, or delete it with: "
                f"{shlex.join(self._request.deletion)}"
            )

    def _create(self) -> None:
        self._standing.may(self._request.name, self._what, self._request.deletion)
        told(f"asking for {self._what}")
        queued.create(self._calls, self._request, self._job)

    def _replaced(self, found: Found) -> None:
        """Deletes what is of no more use, so that it can be asked for anew."""
        if found.state == FAILED:
            self._borne(hints.outside(f"{self._request.name} failed", found.message, self._request))
        # Another launcher may have replaced it since.
        again = self._described()
        if (again.state, again.made) == (found.state, found.made):
            told(
                f"{self._request.name} was {'taken' if found.state == SUSPENDED else 'refused'}: deleting it, to ask anew"
            )
            queued.delete(self._calls, self._request)
            self._standing.gone(self._request.name)

    def _borne(self, error: OutsideError) -> None:
        """Says what failed, and raises it where it would fail again, or has failed often enough."""
        self._failures += 1
        if error.hopeless or self._failures >= self._patience.tries:
            raise error
        told(f"{error} (again in {self._patience.poll:g} s)")


@contextmanager
def alone(request: Request) -> Iterator[None]:
    """Refuses a second launcher of this machine for the same queued resource.

    Args:
      request: whose name it has.

    Raises:
      UserError: one is at work.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "immunax-tpu"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{request.project or 'default'}-{request.zone}-{request.name}.lock"
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"another launcher, process {lock.read().strip() or '?'}, is at work on {request.name}: wait, or end it."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield

"""The processes of a job meet, before anything is computed: each says who it is, and hears of all.

JAX's own meeting ends a job of which a process is missing in a hundred lines that do not say which. This one comes before it, on
the same port: process 0 listens, every other one sends a line of JSON and gets one back.
"""

import ipaddress
import json
import select
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, NoReturn

from immunax.runtime.errors import UserError, shown
from immunax.runtime.exits import EXIT_LOST, EXIT_USER

_LONGEST = 1 << 16
_EACH_SECONDS = 5.0  # for a line, of whoever connects
_AGAIN_SECONDS = 0.2
_ANSWER_SECONDS = 10.0  # beyond the time that all have


class Host(NamedTuple):
    """Where a process is.

    Attributes:
      name: as it calls itself.
      address: as process 0 reaches it.
    """

    name: str
    address: str


class LostError(UserError):
    """Another process of the job is not there: not the user's mistake, so that a launcher may start the job again."""


def called(index: int, host: str | None) -> str:
    """A process in a message."""
    return f"process {index}" if host is None else f"process {index} on {host}"


def meet(address: str, count: int, index: int, about: Mapping[str, str], seconds: float) -> tuple[Host, ...]:
    """Waits until every process is there.

    Args:
      address: ``host:port``, where process 0 listens.
      count: of processes.
      index: of this one.
      about: what has to be the same in all.
      seconds: that all have to come.

    Returns:
      Every process's host.

    Raises:
      LostError: one has not come.
      UserError: one is another than process 0, or the port is taken.
      SystemExit: process 0 has told the user already why this job ends.
    """
    host, _, port = address.rpartition(":")
    own = {"process": index, "count": count, "host": socket.gethostname(), "about": dict(about)}
    deadline = time.monotonic() + seconds
    if index == 0:
        return _received(int(port), {**own, "address": host}, count, deadline, seconds)
    answer = _sent(host.strip("[]"), int(port), own, deadline)
    if answer is None:
        raise LostError(
            f"distributed.coordinator={address}: process 0 has not answered within {seconds:g} s; start it there, with the same "
            "command and distributed.process_id=0."
        )
    if "status" in answer:
        raise SystemExit(answer["status"])
    return tuple(Host(*each) for each in answer["hosts"])


def _received(port: int, own: dict[str, Any], count: int, deadline: float, seconds: float) -> tuple[Host, ...]:
    there = {0: own}
    with ExitStack() as stack:
        waiting: list[tuple[int, socket.socket]] = []
        try:
            server = stack.enter_context(_server(port))
        except OSError as error:
            raise UserError(
                f"distributed.coordinator: port {port} cannot be used here ({error.strerror}); choose another."
            ) from error
        try:
            while len(there) < count:
                connection, said = _next(server, deadline)
                if connection is None:
                    _missing(there, count, seconds)
                stack.enter_context(connection)
                if said is None or "process" not in said:
                    continue
                index = said["process"]
                if gone := [each for each in waiting if each[0] == index and _is_gone(each[1])]:
                    there.pop(index)  # it was started again meanwhile
                waiting = [*(each for each in waiting if each not in gone), (index, connection)]
                _check(own, said, there)
                there[index] = {**said, "address": _address(connection)}
        except UserError as error:
            for _, connection in waiting:
                _say(connection, {"status": EXIT_LOST if isinstance(error, LostError) else EXIT_USER})
            raise
        hosts = tuple(Host(there[each]["host"], there[each]["address"]) for each in range(count))
        for _, connection in waiting:
            _say(connection, {"hosts": hosts})
    return hosts


def _address(connection: socket.socket) -> str:
    """Of the other end, as an address is written before a port."""
    found = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return f"[{mapped}]" if mapped.version == 6 else str(mapped)


def _server(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=1024)


def _next(server: socket.socket, deadline: float) -> tuple[socket.socket | None, dict[str, Any] | None]:
    """Whoever connects next, and what he says; nothing where that is no process of ours, nobody after the deadline."""
    server.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return None, None
    connection.settimeout(_EACH_SECONDS)
    return connection, _line(connection)


def _line(connection: socket.socket) -> dict[str, Any] | None:
    try:
        with connection.makefile("rb") as file:
            found = json.loads(file.readline(_LONGEST))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("process", 0), int) else None


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end, which only waits, has closed."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _say(connection: socket.socket, what: Mapping[str, Any]) -> None:
    with suppress(OSError):
        connection.sendall(json.dumps(what).encode() + b"\n")


def _check(own: Mapping[str, Any], said: Mapping[str, Any], there: Mapping[int, Mapping[str, Any]]) -> None:
    index, host = said["process"], shown(said.get("host"))
    if index in there or not 0 <= index < own["count"]:
        raise UserError(
            f"distributed: {called(index, host)} is one too many, of {own['count']} that process 0 expects; give each a "
            "process_id of its own, and all the same number of processes."
        )
    differ = sorted(name for name, value in own["about"].items() if said.get("about", {}).get(name) != value)
    if differ:
        raise UserError(
            f"distributed: {called(index, host)} has another {', '.join(differ)} than process 0 on {own['host']}; start all with "
            "the same command, from the same code."
        )


def _missing(there: Mapping[int, Any], count: int, seconds: float) -> NoReturn:
    absent = [called(each, None) for each in range(count) if each not in there]
    raise LostError(
        f"distributed: {', '.join(absent[:8])}{' and others' if len(absent) > 8 else ''} of {count} did not come within "
        f"{seconds:g} s; see that they were started and reach this host."
    )


def _sent(host: str, port: int, own: Mapping[str, Any], deadline: float) -> dict[str, Any] | None:
    """What process 0 answers, asked again until it is there; None where it does not answer in time."""
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, port), timeout=_EACH_SECONDS) as connection:
            _say(connection, own)
            connection.settimeout(max(deadline - time.monotonic(), 0) + _ANSWER_SECONDS)
            answer = _line(connection)
            if answer is not None:
                return answer
        time.sleep(_AGAIN_SECONDS)
    return None

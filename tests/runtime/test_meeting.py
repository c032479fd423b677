"""Processes that meet: threads here, over the sockets that hosts use."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.meeting import Host, LostError, meet

SAME = {"configuration of model": "1", "code": "2"}
HERE = (Host(socket.gethostname(), "localhost"), *[Host(socket.gethostname(), "127.0.0.1")] * 2)


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("", 0))
        return f"localhost:{free.getsockname()[1]}"


def met(address, *each, seconds=5.0, first=lambda: None):
    """What each of some processes finds, ``(index, about)`` of them, of three."""

    def one(index, about):
        try:
            return meet(address, 3, index, about, seconds)
        except (UserError, SystemExit) as end:
            return end

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(one, *each[0])]
        first()
        return [found.result() for found in waiting + [pool.submit(one, *other) for other in each[1:]]]


def test_all_hear_of_all(address):
    assert met(address, (0, SAME), (1, SAME), (2, SAME)) == [HERE] * 3


def test_the_first_one_may_come_last(address):
    assert met(address, (2, SAME), (1, SAME), (0, SAME)) == [HERE] * 3


def test_who_does_not_come_is_named_by_the_first_one_and_ends_the_others(address):
    leader, other = met(address, (0, SAME), (2, SAME), seconds=1)
    assert isinstance(leader, LostError)
    assert "process 1 of 3 did not come within 1 s" in str(leader)
    assert isinstance(other, SystemExit)


def test_a_first_one_that_is_not_there_is_told_by_the_others(address):
    (other,) = met(address, (1, SAME), seconds=0.5)
    assert isinstance(other, LostError)
    assert f"distributed.coordinator={address}: process 0 has not answered within 0.5 s" in str(other)


def test_another_configuration_is_named_before_anything_is_computed(address):
    leader, other = met(address, (0, SAME), (1, {**SAME, "configuration of model": "3"}))
    assert "process 1 on " in str(leader)
    assert "has another configuration of model than process 0" in str(leader)
    assert other.code == 2


def test_two_that_say_they_are_one_are_refused(address):
    leader, *_ = met(address, (0, SAME), (1, SAME), (1, SAME))
    assert "process 1 on " in str(leader)
    assert "is one too many, of 3" in str(leader)


def test_one_that_was_started_again_before_all_had_come_takes_its_own_place(address):
    def killed():
        host, port = address.split(":")
        while True:
            with suppress(OSError), socket.create_connection((host, int(port))) as connection:
                connection.sendall(
                    json.dumps({"process": 1, "count": 3, "host": "here", "about": SAME}).encode() + b"\n"
                )
                time.sleep(0.2)
                return
            time.sleep(0.05)  # until the port is open; in haste a socket may find itself there

    assert met(address, (0, SAME), (1, SAME), (2, SAME), first=killed) == [HERE] * 3


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n", b"[1]\n", b"{}\n", b'{"process": "1"}\n', b"\xff" * 100_000]
)
def test_whoever_else_comes_by_is_no_process(address, said):
    def stranger():
        host, port = address.split(":")
        for _ in range(50):
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as connection:
                connection.sendall(said)
                return

    assert met(address, (0, SAME), (1, SAME), (2, SAME), first=stranger) == [HERE] * 3


def test_a_port_that_is_taken_is_told(address):
    with socket.create_server(("", int(address.split(":")[1]))):
        (leader,) = met(address, (0, SAME), seconds=0.5)
    assert "cannot be used here" in str(leader)

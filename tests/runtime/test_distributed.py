import os
import socket
import subprocess
import sys

import pytest

from immunax.runtime import distributed
from immunax.runtime.distributed import Distributed, begin
from immunax.runtime.errors import UserError
from immunax.runtime.leader import is_leader
from immunax.runtime.parts import Part

PROGRAM = """
import sys, jax
from immunax.runtime.leader import is_leader
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
print(is_leader())
"""


def test_of_two_processes_the_first_leads():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for index in range(2)
    ]
    # Gloo reports its connections on standard output, before the program's own line.
    assert [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes] == ["True", "False"]


def test_one_process_leads():
    assert is_leader()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"processes": 2, "process_id": 0}, "coordinator is missing"),
        ({"coordinator": "a:1"}, "processes, process_id is missing"),
        ({"coordinator": "a:1", "processes": 2, "process_id": 2}, "expected 0 to 1"),
        ({"coordinator": "a", "processes": 2, "process_id": 1}, "expected host:port"),
        ({"coordinator": "a:0", "processes": 2, "process_id": 1}, "expected host:port"),
        ({"coordinator": "a:b", "processes": 2, "process_id": 1}, "expected host:port"),
        ({"timeout": 0}, "positive number of seconds"),
        ({"timeout": None}, "timeout=None: expected a positive number of seconds"),
        ({"stall": -1}, "stall=-1: expected a positive number of seconds"),
    ],
)
def test_half_an_address_and_a_place_that_is_none_are_refused(given, told):
    with pytest.raises(UserError, match=told):
        Distributed(**given)
    assert Distributed(stall=None).stall is None


@pytest.mark.parametrize(
    ("environment", "many"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, False),  # within salloc, started without srun
        ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "a[1-4]", "SLURM_NTASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_PROCESS_ADDRESSES": "a:8471,b:8471"}, True),
        ({"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "localhost"}, True),
    ],
)
def test_a_launcher_says_whether_there_are_several(environment, many, monkeypatch):
    monkeypatch.setattr(distributed, "_is_tpu_host", lambda environment: False)
    assert distributed._is_one_of_many(environment) == many


@pytest.mark.parametrize(
    ("platforms", "is_host"), [(None, True), ("", True), ("tpu", True), ("tpu,cpu", True), ("cpu", False)]
)
def test_a_machine_with_chips_is_one_unless_it_is_told_to_use_others(platforms, is_host, monkeypatch):
    monkeypatch.setattr(distributed.hardware_utils, "num_available_tpu_chips_and_device_id", lambda: (4, "0x63"))
    assert distributed._is_tpu_host({} if platforms is None else {"JAX_PLATFORMS": platforms}) == is_host


def test_a_process_that_is_alone_asks_nobody(monkeypatch):
    def asked(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(distributed, "meet", asked)
    monkeypatch.setattr(distributed.clusters.ClusterEnv, "is_env_present", asked)
    begin(Distributed(), asked)
    begin(Distributed("localhost:1", 1, 0), asked)
    assert is_leader()


@pytest.mark.parametrize(("version", "refused"), [("0.10.2", True), ("0.11.0", False), ("0.12.0.1", False)])
def test_a_cpu_that_sends_out_of_order_is_refused_before_anybody_is_met(version, refused, monkeypatch):
    monkeypatch.setattr(distributed.jaxlib.version, "__version__", version)
    monkeypatch.setattr(distributed, "_is_tpu_host", lambda environment: False)
    monkeypatch.setattr(distributed.hardware_utils, "has_visible_nvidia_gpu", lambda: False)

    class MetError(Exception):
        pass

    def met(*_):
        raise MetError

    monkeypatch.setattr(distributed, "meet", met)
    with (
        pytest.raises(UserError, match=f"under jaxlib {version}; use Python 3.12")
        if refused
        else pytest.raises(MetError)
    ):
        begin(Distributed("localhost:1", 2, 0), dict)


def test_one_process_is_in_no_part(monkeypatch):
    monkeypatch.setattr(distributed, "_place", lambda asked: None)
    with pytest.raises(UserError, match="there is one process, which 2 parts cannot share"):
        begin(Distributed(), dict, Part(0, 2))
    begin(Distributed(), dict, Part(0, 1))


@pytest.mark.parametrize(
    ("port", "firsts", "expected"),
    [
        (8476, ("a", "c", "e"), (8476, 8476, 8476)),
        (8476, ("a", "a", "b"), (8477, 8478, 8479)),
        (65534, ("a", "a", "b"), (65535, 65532, 65533)),
    ],
)
def test_parts_meet_on_the_port_that_is_open_unless_several_begin_on_one_host(port, firsts, expected):
    assert tuple(distributed._port(port, mine, firsts) for mine in range(len(firsts))) == expected

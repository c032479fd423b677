import os
import socket
import subprocess
import sys

import pytest

from immunax.runtime.distributed import Processes, initialize, is_leader
from immunax.runtime.errors import UserError

PROGRAM = """
import sys
from immunax.runtime.distributed import Processes, initialize, is_leader
index = int(sys.argv[2])
initialize(Processes(coordinator=sys.argv[1], num_processes=2, process_id=index))
import jax, jax.numpy as jnp
from immunax.runtime.mesh import MeshSpec, build, shard_batch
mesh = build(MeshSpec(data=-1))
x = shard_batch(jnp.arange(8.0).__array__(), mesh)
total = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x.sum(), ("data", "fsdp")), mesh=mesh,
    in_specs=jax.sharding.PartitionSpec(("data", "fsdp")), out_specs=jax.sharding.PartitionSpec()))(x)
print(jax.device_count(), float(total), is_leader())
"""


def test_two_processes_add_up_what_each_holds():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for index in range(2)
    ]
    # Gloo reports its connections on standard output, before the program's own line.
    answers = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in processes]
    assert answers == [["4", "28.0", "True"], ["4", "28.0", "False"]]


def test_one_process_needs_no_coordinator():
    initialize(Processes())
    assert is_leader()


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (Processes(num_processes=2), "coordinator=HOST:PORT"),
        (Processes(coordinator="a:1", num_processes=2, process_id=2), "outside 0..1"),
        (Processes(coordinator="localhost", num_processes=1, process_id=0), "not HOST:PORT"),
        (Processes(automatic=True, process_id=0), "leave one or the other out"),
    ],
)
def test_contradictory_fields_are_told(processes, message):
    with pytest.raises(UserError, match=message):
        initialize(processes)

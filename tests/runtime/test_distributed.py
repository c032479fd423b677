import os
import socket
import subprocess
import sys

from immunax.runtime.distributed import is_leader

PROGRAM = """
import sys, jax
from immunax.runtime.distributed import is_leader
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

"""Runs of a sweep as tasks of a Ray cluster of TPU machines: a run takes a slice, a process each of its machines.

    ray job submit --working-dir . -- python tpu/ray_runs.py LINES v5litepod-16 4 4

``LINES`` has a command a line, ``v5litepod-16`` is the slices' type, with 4 machines of 4 chips. A slice's first machine has the
resource ``TPU-v5litepod-16-head``, and all of a slice have one that is called after it, as Ray finds out by itself on Cloud TPU;
type ``cpu`` takes any machine, one process a run. What Ray loses with a machine is started again elsewhere, as is what ends with
142 or 143.
"""

import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ray  # pyright: ignore[reportMissingImports]
from ray import exceptions  # pyright: ignore[reportMissingImports]

_AGAIN = (142, 143)
_LOST = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
    exceptions.RuntimeEnvSetupError,
)
_TRIES = 1000
_CPU = "cpu"


class AgainError(Exception):
    """A run that is to be started again, elsewhere perhaps."""


@ray.remote
def process(arguments: Sequence[str]) -> int:
    """One process of a run, on the machine that Ray has chosen.

    Args:
      arguments: behind ``python -m``.

    Returns:
      Its exit status, as a shell has it.
    """
    print(f"{socket.gethostname()}: {shlex.join(arguments)}", flush=True)
    # Where Ray's worker is killed, the command gets the signal that it saves at, and does not hold the chips for ever.
    status = subprocess.run(
        ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *arguments], check=False
    ).returncode
    return status if status >= 0 else 128 - status


# As often as it takes: machines are taken while runs last, which is nobody's mistake. What a process raises is, and stays.
@ray.remote(max_retries=_TRIES, retry_exceptions=[AgainError])  # pyright: ignore[reportArgumentType]
def run(arguments: Sequence[str], machines: int, chips: int) -> int:
    """One run, from the first machine of a slice.

    Args:
      arguments: behind ``python -m``.
      machines: of the slice.
      chips: of each; 0 for any machine.

    Returns:
      Its exit status, the lowest that is not 0: a mistake says more than its consequences.

    Raises:
      AgainError: it was stopped, or lost a process.
    """
    there = {}
    if chips:
        from ray.util.tpu import get_current_pod_name  # pyright: ignore[reportMissingImports]

        there = {str(get_current_pod_name()): 1, "TPU": chips}
    parts = [process.options(num_cpus=0, resources=there, max_retries=0).remote(arguments) for _ in range(machines)]
    try:
        statuses = ray.get(parts)
    except _LOST as lost:
        raise AgainError(f"a machine or a worker is gone: {type(lost).__name__}") from lost
    worst = [status for status in statuses if status not in (0, *_AGAIN)]
    if worst:
        return min(worst)
    if any(statuses):
        raise AgainError(f"ended with {max(statuses)}")
    return 0


def main(file: str, type_: str, machines: str = "1", chips: str = "0") -> int:
    """Runs every line, and tells of each as it ends.

    Args:
      file: a command a line.
      type_: of the slices, or ``cpu``.
      machines: of each slice.
      chips: of each machine.

    Returns:
      How many failed, 255 at most.
    """
    ray.init(log_to_driver=True)
    wanted = {"num_cpus": 1} if type_ == _CPU else {"num_cpus": 0, "resources": {f"TPU-{type_}-head": 1}}
    lines = [line for line in Path(file).read_text().splitlines() if line]
    waiting = {run.options(**wanted).remote(shlex.split(line), int(machines), int(chips)): line for line in lines}
    failed = 0
    while waiting:
        (ended,), _ = ray.wait(list(waiting), num_returns=1)
        line = waiting.pop(ended)
        try:
            status = ray.get(ended)
        except exceptions.RayError as error:
            status = type(error).__name__
        failed += status != 0
        print(
            f"{len(lines) - len(waiting)} of {len(lines)}: {'done' if status == 0 else f'failed ({status})'}: {line}",
            flush=True,
        )
    return min(failed, 255)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

"""Runs of a sweep as tasks of a Ray cluster of TPU machines: a run takes a slice, a process each of its machines.

    ray job submit --working-dir FOLDER -- python ray_runs.py LINES v5litepod-16 4 4 8

``LINES`` has a command a line, ``v5litepod-16`` is the slices' type, with 4 machines of 4 chips, and 8 runs go on side by side
(without a number as many as there are slices). A slice's first machine has the resource ``TPU-v5litepod-16-head``, and all of a
slice have one that is called after it, as Ray finds out by itself on Cloud TPU; type ``cpu`` takes any machine.

What Ray loses with a machine is started again on another slice, as is what ends with 142 or 143; a slice that has lost a machine
is left alone, so that the autoscaler finds it idle and gives it back.
"""

import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray  # pyright: ignore[reportMissingImports]
from ray import exceptions  # pyright: ignore[reportMissingImports]

_EXIT_LOST = 142
_AGAIN = (_EXIT_LOST, 143)
_GONE = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
    exceptions.RuntimeEnvSetupError,
)
_TRIES = 100
_CPU = "cpu"
_TIMEOUT, _TIMEOUT_SECONDS = "distributed.timeout=", 300.0
_LATE = 1.2
"""Of that: behind it no process is at work any more that another one was lost to."""
_LOOK_SECONDS = 5.0


class LostError(Exception):
    """A machine of a run is gone, or a process had to be ended: nobody has said that all is over there."""


class Attempt(NamedTuple):
    """A run that waits.

    Attributes:
      line: its command.
      number: how often it was started before.
      at: when it may be, of the monotonic clock.
    """

    line: str
    number: int = 0
    at: float = 0.0


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


# main() starts it again: what is lost with its first machine may go on on the others for a while.
@ray.remote(max_retries=0)
def run(arguments: Sequence[str], machines: int, chips: int) -> int:
    """One run, from the first machine of a slice.

    Args:
      arguments: behind ``python -m``.
      machines: of the slice.
      chips: of each; 0 for any machine.

    Returns:
      Its exit status, the lowest that is not 0: a mistake says more than its consequences; 142 where the slice has lost a
      machine.

    Raises:
      LostError: a machine is gone, or had not ended its process long after the first one ended.
    """
    seconds, there = patience(arguments), {}
    if chips:
        name = _whole(machines, seconds)
        if name is None:
            return _EXIT_LOST
        there = {name: 1, "TPU": chips}
    parts = [process.options(num_cpus=0, resources=there, max_retries=0).remote(arguments) for _ in range(machines)]
    waiting, statuses, lost, until = parts, [], None, None
    while waiting:
        ended, waiting = ray.wait(waiting, timeout=None if until is None else max(0.0, until - time.monotonic()))
        if not ended:
            break
        try:
            statuses += ray.get(ended)
        except _GONE as error:
            lost = error
        # The others end by themselves in that time; one that waits for a machine never does.
        if until is None and (lost or any(statuses)):
            until = time.monotonic() + seconds
    for part in waiting:
        ray.cancel(part, force=True)
    worst = [status for status in statuses if status not in (0, *_AGAIN)]
    if lost:
        raise LostError(f"a machine or a worker is gone: {type(lost).__name__}")
    if worst:
        return min(worst)
    if waiting:
        raise LostError(f"{len(waiting)} of {machines} processes had not ended after {seconds:g} s")
    return max(statuses)


def patience(arguments: Sequence[str]) -> float:
    """Seconds within which the processes of a run end once one of them has, by its own ``distributed.timeout``."""
    said = [text.partition("=")[2] for text in arguments if text.lstrip("+").startswith(_TIMEOUT)]
    return _LATE * (float(said[-1]) if said else _TIMEOUT_SECONDS)


def _whole(machines: int, seconds: float) -> str | None:
    """The name of the slice that this machine is of, once all of it is there; None where that is not to be."""
    from ray.util import tpu  # pyright: ignore[reportMissingImports]

    name, until = str(tpu.get_current_pod_name()), time.monotonic() + seconds
    while True:
        alive, gone = _machines(name)
        if alive >= machines:
            return name
        if gone or time.monotonic() > until:
            print(f"{name} has {alive} of {machines} machines", flush=True)
            return None
        time.sleep(_LOOK_SECONDS)


def _machines(slice_name: str | None) -> tuple[int, int]:
    """How many machines of a slice are there, and how many were: one that comes up has machines to come, and none that were."""
    from ray.util import tpu  # pyright: ignore[reportMissingImports]

    every = [node["Alive"] for node in ray.nodes() if tpu.get_tpu_slice_name_from_node(node) == slice_name]
    return every.count(True), every.count(False)


def wanted(type_: str, machines: int) -> dict[str, Any]:
    """What the first machine of a run is to be: of a slice that has lost none.

    Args:
      type_: of the slices, or ``cpu``.
      machines: of each slice.
    """
    if type_ == _CPU:
        return {"num_cpus": 1}
    from ray.util import tpu  # pyright: ignore[reportMissingImports]

    head, left = f"TPU-{type_}-head", []
    for node in ray.nodes():
        if node["Alive"] and head in node["Resources"]:
            alive, gone = _machines(tpu.get_tpu_slice_name_from_node(node))
            left += [node["NodeID"]] if gone and alive < machines else []
    chosen = {"label_selector": {"ray.io/node-id": f"!in({','.join(left)})"}} if left else {}
    return {"num_cpus": 0, "resources": {head: 1}, **chosen}


def main(file: str, type_: str, machines: str = "1", chips: str = "0", at_once: str = "0") -> int:
    """Runs every line, and tells of each as it ends.

    Args:
      file: a command a line.
      type_: of the slices, or ``cpu``.
      machines: of each slice.
      chips: of each machine.
      at_once: runs side by side; 0 for as many as there is room for.

    Returns:
      How many failed, 255 at most.
    """
    ray.init(log_to_driver=True)
    waiting = [Attempt(line) for line in Path(file).read_text().splitlines() if line]
    many, running, ended, failed = len(waiting), {}, 0, 0
    most = int(at_once) or many
    while waiting or running:
        ready = [each for each in waiting if each.at <= time.monotonic()][: most - len(running)]
        for each in ready:
            waiting.remove(each)
            asked = run.options(**wanted(type_, int(machines)))
            running[asked.remote(shlex.split(each.line), int(machines), int(chips))] = each
        over, _ = ray.wait(list(running), timeout=_LOOK_SECONDS if waiting else None) if running else ([], [])
        if not running:
            time.sleep(_LOOK_SECONDS / 10)
        for one in over:
            each = running.pop(one)
            status, again = _outcome(one, patience(shlex.split(each.line)))
            if again is not None and each.number < _TRIES:
                print(f"started again in {again:g} s ({each.number + 1}): {status}: {each.line}", flush=True)
                waiting.append(Attempt(each.line, each.number + 1, time.monotonic() + again))
                continue
            ended, failed = ended + 1, failed + (status != 0)
            print(f"{ended} of {many}: {'done' if status == 0 else f'failed ({status})'}: {each.line}", flush=True)
    return min(failed, 255)


def _outcome(one: Any, seconds: float) -> tuple[int | str, float | None]:
    """What a run ended with, and in how many seconds it is to be started again, if it is.

    Where nobody has said that all its processes are over, one may be at work in the run's folder for that long, and another
    one beside it would be refused.
    """
    try:
        status: Any = ray.get(one)
    except (LostError, *_GONE) as error:
        return type(error).__name__, seconds
    except exceptions.RayError as error:
        return type(error).__name__, None
    return status, 0.0 if status in _AGAIN else None


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

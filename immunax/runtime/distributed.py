"""Several processes as one JAX program: one a host on a pod, or several on one machine.

Every process runs the same command. They meet before anything is computed (:mod:`~immunax.runtime.meeting`), hold on to one
another while they run (:mod:`~immunax.runtime.watch`), and process 0, the leader, prints and writes.
"""

import atexit
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jaxlib.version
from jax._src import clusters, hardware_utils
from jax._src.api import clean_up
from jax._src.clusters.cloud_tpu_cluster import get_tpu_env_value
from jax._src.distributed import global_state

from immunax.runtime import watch
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say
from immunax.runtime.meeting import Host, meet
from immunax.runtime.parts import Part, environment, grid_of, members

_DISORDERLY = 0, 10
_PORTS = 1 << 16
_PATIENCE = 10
"""How much longer than we do JAX waits for a silent process, which it ends the job for in a hundred lines."""


@dataclass(frozen=True)
class Distributed:
    """How the processes of a job find each other; all None where Cloud TPU, GKE, SLURM or Open MPI says it, or there is one.

    Attributes:
      coordinator: ``host:port`` of process 0, as the others reach it.
      processes: how many there are.
      process_id: which one this is, from 0.
      timeout: seconds that a process may be late or silent before the others end.
      stall: seconds in which no process may go on, as in a program of all devices that never ends, before all end; None for ever.
    """

    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None
    timeout: float = 300.0
    stall: float | None = 86400.0

    def __post_init__(self):
        for name, seconds in (("timeout", self.timeout), ("stall", math.inf if self.stall is None else self.stall)):
            if seconds is None or not seconds > 0:
                raise UserError(f"distributed.{name}={seconds}: expected a positive number of seconds.")
        given = {name: getattr(self, name) for name in ("coordinator", "processes", "process_id")}
        absent = [name for name, value in given.items() if value is None]
        if absent and len(absent) < len(given):
            raise UserError(f"distributed: {', '.join(absent)} is missing; give all three, or none.")
        if self.processes is None or self.process_id is None:
            return
        if not 0 <= self.process_id < self.processes:
            raise UserError(
                f"distributed.process_id={self.process_id}: expected 0 to {self.processes - 1}, as there are "
                f"distributed.processes={self.processes}."
            )
        host, colon, port = str(self.coordinator).rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < _PORTS):
            raise UserError(f"distributed.coordinator={self.coordinator}: expected host:port.")


class _Place(NamedTuple):
    coordinator: str
    count: int
    index: int


_share: tuple[int, int] | None = None
_joined = False


def begin(asked: Distributed, about: Callable[[], Mapping[str, str]], part: Part | None = None) -> None:
    """Makes this process one of a job, where there are several; once, and before any use of a device.

    Args:
      asked: of the user.
      about: gives digests of what has to be the same in all of them, by what a message calls it.
      part: of them that computes together; all by default.

    Raises:
      UserError: the others are not the same, nobody is there, or they do not make so many parts.
      SystemExit: this process is in another part, and has nothing to do.
    """
    global _joined
    place = None if _joined else _place(asked)
    if place is None or place.count == 1:
        if part is not None and part.count > 1 and not _joined:
            raise UserError(f"mesh.part: there is one process, which {part.count} parts cannot share; leave it out.")
        return
    if part is None or place.count > part.count:
        _refuse_disorder()
    hosts = meet(*place, about(), asked.timeout)
    _joined = True
    if part is not None:
        place, hosts = _within(part, place, hosts, asked.timeout)
        if place.count == 1:
            return
    # Programs of two threads would go out in an order of their own in each process.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _own_output()
    gone = f"distributed: one of {place.count} processes came and was gone before JAX had started; start the job again"
    with watch.starting(gone):
        jax.distributed.initialize(
            *place,
            cluster_detection_method="deactivate",
            initialization_timeout=int(asked.timeout) + 1,
            heartbeat_timeout_seconds=int(asked.timeout * _PATIENCE) + 1,
            shutdown_timeout_seconds=int(asked.timeout) + 1,
        )
    watch.Watch(global_state.client, place.index, [each.name for each in hosts], asked.timeout, asked.stall).start()
    atexit.register(_end)


def _end() -> None:
    """JAX's own end, in which each process waits for all, watched to its last moment."""
    try:
        clean_up()
    finally:
        watch.stop()


def share() -> tuple[int, int] | None:
    """Which of how many parts this process is in, where they share out the runs of a sweep."""
    return _share


def _within(part: Part, place: _Place, hosts: Sequence[Host], seconds: float) -> tuple[_Place, Sequence[Host]]:
    """The place of this process in its part, whose own have met there."""
    global _share
    tpu = _is_tpu_host(os.environ)
    grid = grid_of(get_tpu_env_value("TOPOLOGY") or os.environ.get("TPU_TOPOLOGY") if tpu else None, place.count)
    parts = members(grid, part.count)
    mine = next(number for number, each in enumerate(parts) if place.index in each)
    if part.index not in (None, mine):
        told = f"process {place.index} is in part {mine} of {part.count}, and mesh.part={part.index}/{part.count} is another"
        say(told, error=True)
        raise SystemExit(0)
    _share = None if part.index is not None else (mine, part.count)
    own, index = [hosts[each] for each in parts[mine]], parts[mine].index(place.index)
    if tpu:
        os.environ.update(environment(grid, part.count, [each.address for each in own], index))
    if len(own) == 1:
        return _Place(place.coordinator, 1, 0), own
    # Who runs one part alone leaves the port to the lines of the others.
    firsts = [hosts[each[0]].name if part.index is None else "" for each in parts]
    inner = _Place(
        f"{own[0].address}:{_port(int(place.coordinator.rpartition(':')[2]), mine, firsts)}", len(own), index
    )
    return inner, meet(*inner, {}, seconds)


def _port(port: int, mine: int, firsts: Sequence[str]) -> int:
    """Where a part meets, on its first host: on the port of the whole job, which is open, unless several parts begin on one host.

    Args:
      port: of the whole job, where nobody listens any more.
      mine: the part.
      firsts: the names of the first host of each.
    """
    if len(set(firsts)) == len(firsts):
        return port
    return port + 1 + mine if port + 1 + mine < _PORTS else port + mine - len(firsts)


def _refuse_disorder() -> None:
    """Refuses a CPU whose XLA sends to other processes out of order.

    Up to jaxlib 0.10 a collective may start while a loop before it, which holds others, is still at work. gloo has one line
    between two devices: what comes is then not what was to come. It ends the process where the sizes differ ("Is there a
    distributed collective mismatch in your code?"), and nobody is told where they do not.
    """
    found = jaxlib.version.__version__
    if tuple(map(int, found.split(".")[:2])) > _DISORDERLY or _is_tpu_host(os.environ):
        return
    if not hardware_utils.has_visible_nvidia_gpu():
        raise UserError(
            f"distributed: several CPU processes mix up what they send one another under jaxlib {found}; use Python 3.12 or "
            "later, with jax 0.11 or later."
        )


def _own_output() -> None:
    """Leaves standard output to what this program says: gloo prints there whom it has found."""
    own = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _place(asked: Distributed) -> _Place | None:
    """Where this process stands; None for a single one, which never waits to find that out."""
    if asked.coordinator is not None and asked.processes is not None and asked.process_id is not None:
        return _Place(asked.coordinator, asked.processes, asked.process_id)
    if not _is_one_of_many(os.environ):
        return None
    known = [each for each in clusters.ClusterEnv._cluster_types if not each.opt_in_only_method]
    found = next((each for each in known if each.is_env_present()), None)
    if found is None:
        raise UserError(
            "there are several processes, and nothing says where they meet: give distributed.coordinator=HOST:PORT, "
            "distributed.processes and distributed.process_id."
        )
    address = found.get_coordinator_address(int(asked.timeout), os.environ.get("JAX_COORDINATOR_PORT"))
    return _Place(address, found.get_process_count(), found.get_process_id())


def _is_one_of_many(environment: Mapping[str, str]) -> bool:
    """Whether a launcher says so, or this is a host of a TPU slice: then alone JAX's own detection, which may ask the network."""

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else 1

    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    launched = (
        ("SLURM_STEP_NODELIST" in environment and number("SLURM_NTASKS") > 1)
        or number("OMPI_COMM_WORLD_SIZE") > 1
        or number("MEGASCALE_NUM_SLICES") > 1
        or len(hosts.split(",")) > 1
    )
    return launched or _is_tpu_host(environment)


def _is_tpu_host(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS") or "tpu"
    if "TPU_SKIP_MDS_QUERY" in environment or "tpu" not in platforms.split(","):
        return False
    return hardware_utils.num_available_tpu_chips_and_device_id()[0] > 0

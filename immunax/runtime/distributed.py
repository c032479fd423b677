"""Several processes as one JAX program: one a host on a pod, or several on one machine."""

from dataclasses import dataclass

import jax

from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Processes:
    """How the processes of one run find each other.

    Attributes:
      automatic: ask the platform (Cloud TPU, SLURM, Open MPI, Kubernetes); the other fields stay empty.
      coordinator: ``host:port`` of process 0, reachable from all.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """

    automatic: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def initialize(processes: Processes) -> None:
    """Join the other processes; does nothing for a run of one process. Call it before anything uses a device.

    Args:
      processes: from the configuration.

    Raises:
      UserError: the fields contradict each other, or the other processes cannot be found.
    """
    given = {
        name: getattr(processes, name)
        for name in ("coordinator", "num_processes", "process_id")
        if getattr(processes, name) is not None
    }
    if processes.automatic and given:
        raise UserError(f"distributed: automatic=true finds {', '.join(given)} by itself; leave one or the other out")
    if not processes.automatic and not given:
        return
    if not processes.automatic:
        _check(processes)
    # The default on some versions of JAX has no collectives across CPU processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address=processes.coordinator,
            num_processes=processes.num_processes,
            process_id=processes.process_id,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"distributed: could not join the other processes ({reason}); check coordinator") from error


def _check(processes: Processes) -> None:
    coordinator, count, index = processes.coordinator, processes.num_processes, processes.process_id
    if coordinator is None or count is None or index is None:
        raise UserError("distributed: give coordinator=HOST:PORT, num_processes and process_id, or automatic=true")
    if count < 1 or not 0 <= index < count:
        raise UserError(f"distributed: process_id={index} is outside 0..{count - 1} (num_processes={count})")
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise UserError(f"distributed: coordinator={coordinator!r} is not HOST:PORT, for example localhost:8476")


def is_leader() -> bool:
    """Whether this process prints and writes the run's files: process 0. Touches no device before ``initialize``."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0

"""Several processes as one JAX program: one a host on a pod, or several on one machine."""

import jax


def is_leader() -> bool:
    """Whether this process prints and writes the run's files: process 0, or the only one.

    Touches no device before ``jax.distributed.initialize``, which must come before any use of one.
    """
    return not jax.distributed.is_initialized() or jax.process_index() == 0

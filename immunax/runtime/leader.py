"""Which of a job's processes prints and writes."""

import sys


def is_leader() -> bool:
    """Whether this process prints and writes the run's files: process 0, or the only one.

    Touches no device before ``jax.distributed.initialize``, which must come before any use of one. A program that has not
    imported JAX, as one that reads runs, is the only process of its job, and need not wait for that import to know it.
    """
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return True
    from jax._src.distributed import global_state

    return global_state.process_id == 0

"""Where the processes of a job wait for one another in a save, without waiting for what one of them could not write."""

import threading

import orbax.checkpoint as ocp

_FINALIZING = "save_finalize"  # Orbax's thread behind a save
_COMMITTED, _BEHIND = "async_commit_complete", "set_value_start"


class NotWrittenError(Exception):
    """This process could not write its share of a checkpoint; what it met is the context."""


class SaveBarrier:
    """Orbax's own barrier, but for who has nothing to wait for; one for each of its managers.

    Orbax leaves a save that fails in one process before the barrier of those that have written, and then waits at the next one:
    the others are at the one before, and all wait until their time is over, which is 20 minutes. Whoever comes to the barrier
    behind a save without having been at its last one raises instead, and ends the job as for any other error.
    """

    def __init__(self) -> None:
        self._wait = ocp.multihost.get_barrier_sync_fn()
        self._last = ""

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Waits for the others.

        Args:
          key: of the barrier, in Orbax's words.
          timeout_ms: that all have to come.

        Raises:
          NotWrittenError: a save has failed here.
        """
        behind = threading.current_thread().name == _FINALIZING and _BEHIND in key
        if behind and _COMMITTED not in self._last:
            raise NotWrittenError("a checkpoint could not be written")
        self._wait(key=key, timeout_ms=timeout_ms)
        self._last = key

"""The exit statuses that commands share; what else one may end with, such as a step that does not fit, is its own."""

import signal
from typing import TypeGuard

EXIT_BUG = 1
EXIT_USER = 2
"""Of a mistake in what the user gave."""
EXIT_LOST = 142
"""Another process of the job, or a bucket, is not there, is silent, or is gone: a launcher starts such jobs again, as those that
a signal has stopped. As of a process that an alarm ended (128 + SIGALRM)."""
_SIGNALLED = 128  # as a shell has it
EXIT_TERMINATED, EXIT_INTERRUPTED = _SIGNALLED + signal.SIGTERM, _SIGNALLED + signal.SIGINT


def by_signal(name: str) -> int:
    """The exit status of what a signal ends.

    Args:
      name: such as ``SIGTERM``.
    """
    return _SIGNALLED + signal.Signals[name]


def is_stop(status: object) -> TypeGuard[int]:
    """Whether an exit status says that a signal asked for the end."""
    return status in (EXIT_TERMINATED, EXIT_INTERRUPTED)

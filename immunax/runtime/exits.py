"""The exit statuses that commands share; what else one may end with, such as a step that does not fit, is its own."""

import signal
from typing import TypeGuard

EXIT_BUG = 1
EXIT_USER = 2
"""Of a mistake in what the user gave."""
EXIT_LOST = 142
"""Another process of the job is not there, is silent, or is gone: a launcher starts such jobs again, as those that a signal has
stopped. As of a process that an alarm ended (128 + SIGALRM)."""
EXIT_TERMINATED, EXIT_INTERRUPTED = 128 + signal.SIGTERM, 128 + signal.SIGINT
"""As a shell has it."""


def by_signal(name: str) -> int:
    """The exit status of what a signal ends, as a shell has it.

    Args:
      name: such as ``SIGTERM``.
    """
    return 128 + signal.Signals[name]


def is_stop(status: object) -> TypeGuard[int]:
    """Whether an exit status says that a signal asked for the end."""
    return status in (EXIT_TERMINATED, EXIT_INTERRUPTED)

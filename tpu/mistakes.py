"""How the launcher ends: what is a mistake of the user's, what does not fit, what failed outside.

A mistake is a ``UserError``, as in every command, and ends with 2.
"""

from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_LOST, EXIT_TERMINATED, EXIT_USER

EXIT_NOT_FIT, EXIT_OUTSIDE = 3, 4
AGAIN = (EXIT_LOST, EXIT_TERMINATED)
"""Exit statuses of a command that is to be started again, see ``docs/processes.md``."""


class NotFitError(UserError):
    """The run does not fit the slice, or its price the budget."""


class OutsideError(UserError):
    """A program or a service outside failed: the same command may do later, and goes on from what there is.

    Attributes:
      hopeless: whether the same question would be answered the same now.
    """

    def __init__(self, message: str, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


def status_of(error: UserError) -> int:
    """The exit status that goes with an error."""
    if isinstance(error, NotFitError):
        return EXIT_NOT_FIT
    return EXIT_OUTSIDE if isinstance(error, OutsideError) else EXIT_USER

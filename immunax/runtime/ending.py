"""The end of a process: of one that a signal asked for, and of one of several, which the others are told of."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from immunax.runtime import signals
from immunax.runtime.exits import EXIT_BUG, is_stop
from immunax.runtime.together import processes


@contextmanager
def ended_with_others() -> Iterator[None]:
    """Ends the process as what is raised within the block asks for."""
    try:
        yield
    except SystemExit as asked:
        if processes() > 1 and asked.code not in (0, None):
            signals.leave(asked.code if isinstance(asked.code, int) else EXIT_BUG)
        if is_stop(asked.code):
            signals.end(asked.code)
        raise
    except Exception:
        if processes() == 1:
            raise
        traceback.print_exc()
        signals.leave(EXIT_BUG)

"""What was asked for and not given back: named at the end, whatever the end is, with the call that deletes it."""

import shlex
from collections.abc import Sequence

from tpu.calls import told


class Standing:
    """Things that are billed, or may be, by name."""

    def __init__(self) -> None:
        self._deletions: dict[str, tuple[str, list[str]]] = {}

    def may(self, name: str, what: str, deletion: Sequence[str]) -> None:
        """Notes a thing, before it is asked for: a call that fails may have been heard.

        Args:
          name: of the thing.
          what: it is, with its price, for a line.
          deletion: the call that gives it back.
        """
        self._deletions[name] = (what, list(deletion))

    def gone(self, name: str) -> None:
        """Forgets a thing that is known to be deleted, or was never there."""
        self._deletions.pop(name, None)

    def tell(self) -> None:
        """A line for each that is left."""
        for what, deletion in self._deletions.values():
            told(f"still standing, or asked for: {what}; delete it with: {shlex.join(deletion)}")

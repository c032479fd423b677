"""What could not be read, told in few lines: a folder may hold thousands of torn files."""

from collections.abc import Sequence

from immunax.runtime import console

_TOLD = 10


def tell(faults: Sequence[str], of: str = "") -> None:
    """Notes the first lines, and how many more there are.

    Args:
      faults: a line for each file.
      of: what they are told of, such as a panel; empty for all.
    """
    before = f"{of}: " if of else ""
    for line in faults[:_TOLD]:
        console.note(f"{before}{line}")
    if len(faults) > _TOLD:
        console.note(f"{before}and {len(faults) - _TOLD} more files that cannot be read")

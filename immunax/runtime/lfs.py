"""Git LFS leaves three lines of text where a large file belongs, when a repository is cloned without it."""

from pathlib import Path

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import open_plain

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Refuses a file that stands for another one: as text or as a table it would even be read.

    Raises:
      UserError: it is such a pointer, or no plain file.
    """
    with open_plain(path) as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{path}: a Git LFS pointer in place of the file; run git lfs pull in its folder.")

"""A stranger's tokenizer, tried in a child process before this one reads it."""

from pathlib import Path

from immunax.runtime.untrusted.confined import Confined, Limits

_TRIED = Confined("immunax.runtime.untrusted.tokenizer_program", Limits(memory=4 << 30, seconds=60.0, part=1 << 10))


def check(path: Path) -> None:
    """Reads a ``tokenizer.json`` where it can do no harm.

    Args:
      path: of the file.

    Raises:
      FaultError: it cannot be read or used within the limits.
    """
    _try({"path": str(path.absolute())})


def check_text(text: str) -> None:
    """The same of what lies in no such file.

    Args:
      text: what a ``tokenizer.json`` would hold.

    Raises:
      FaultError: as :func:`check`.
    """
    _try({"text": text})


def _try(request: dict[str, str]) -> None:
    for _ in _TRIED.ask(request):
        pass

"""Reading the rows of a set that lives online: a Hub data set, or one file behind an https address."""

import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from immunax.data.files import Form, Row, kind_of, read_file
from immunax.runtime import pace
from immunax.runtime.errors import UserError

_PART, _MOST = 1 << 20, 8 << 30  # bytes of a download: a server can go on for ever
_PATIENCE = 10.0  # seconds for a server to answer


@dataclass(frozen=True)
class Hub:
    """Where a set lives online.

    Attributes:
      id: a Hub data set (``owner/name``), or the https address of one file.
      config: the Hub data set's configuration, where it has several.
      split: the Hub data set's split.
      columns: Hub column -> the name that the column has in the local file, where the two differ.
    """

    id: str
    config: str | None = None
    split: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict)


def read_hub(hub: Hub, form: Form) -> Iterator[Row]:
    """Reads a set that lives online row by row; a Hub data set goes through the cache of ``datasets``.

    Args:
      hub: where the set lives.
      form: for an https address, what the file's name does not tell.

    Yields:
      One mapping a row, columns renamed as ``hub.columns`` says.

    Raises:
      UserError: the set cannot be had (offline, unknown or gated), or the file is malformed.
    """
    rows = _download(hub.id, form) if hub.id.startswith("https://") else _load(hub)
    for row in rows:
        yield {hub.columns.get(name, name): value for name, value in row.items()}


def _download(address: str, form: Form) -> Iterator[Row]:
    name = PurePosixPath(urlsplit(address).path).name
    kind_of(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        try:
            with urllib.request.urlopen(address, timeout=_PATIENCE) as response, path.open("wb") as file:
                while part := response.read(_PART):
                    pace.move()
                    file.write(part)
                    if file.tell() > _MOST:
                        raise UserError(f"data set {address!r}: more than {_MOST} bytes; download it yourself.")
        except OSError as error:
            raise _unreachable(address, error) from error
        yield from read_file(path, form)


def _load(hub: Hub) -> Iterator[Row]:
    import datasets

    try:
        with _quiet(), _no_retries():
            table = datasets.load_dataset(hub.id, hub.config, split=hub.split)
    # Network, gate and naming failures come as a dozen unrelated types; all have the same two remedies.
    except Exception as error:
        raise _unreachable(hub.id, error) from error
    return (dict(row) for row in table)


def _unreachable(name: str, error: Exception) -> UserError:
    return UserError(
        f"cannot get data set {name!r} ({type(error).__name__}): "
        "set data.root=DIR to a local copy, or go online and check the name and your access to it"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars and the loader's own error log off the console: the caller reports in one line."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def _no_retries() -> Iterator[None]:
    """Looks in the cache only where the Hub cannot be reached: its client would retry for half a minute first."""
    from datasets import config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    offline = before[0] or not _reachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True

"""A stranger's parquet file, unfolded in a child process within stated limits."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from immunax.runtime.untrusted import unfold, values
from immunax.runtime.untrusted.confined import Confined, FaultError, Limits
from immunax.runtime.untrusted.files import check_plain, is_plain

_READER = Confined("immunax.runtime.untrusted.parquet_program", Limits(memory=4 << 30, seconds=30.0, part=16 << 20))
_MOST_ROWS, _MOST_BYTES = 5_000_000, 1 << 30
"""Of a table of a certificate; a suite of 200 attacks makes one of a million rows."""
_AT_ONCE, _RECORDS_AT_ONCE = 1024, 1 << 15
_ROWS = values.Limits(values=8_000_000, text=16 << 20, strict=False)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of any columns, a part of them in memory at a time.

    Args:
      path: of the file, gzipped or not.

    Yields:
      Plain values by column; one that JSON has no word for, as a date, is a mapping of its type's name to its text.

    Raises:
      FaultError: it is no parquet file, is damaged, or unfolds to too much.
      UserError: it is no plain file.
    """
    left = unfold.allowed(path) if is_plain(path) else 0
    for part in _ask(path, _AT_ONCE, None):
        left -= len(part)
        if left < 0:
            raise FaultError(f"it unfolds to more than {unfold.RATIO} times its size")
        try:
            yield from values.loads(part, _ROWS)
        except values.MalformedError as error:
            raise FaultError(f"a row {error}") from error


def table(path: Path, columns: Mapping[str, str]) -> Any:
    """A file of known columns as Arrow's table.

    Args:
      path: of the file.
      columns: by name, in order: ``string``, ``int64``, ``float64`` or ``bool``.

    Raises:
      FaultError: as :func:`rows`, or it has other columns, empty cells, or more rows than any certificate.
      UserError: it is no plain file.
    """
    import pyarrow

    types = {
        "string": pyarrow.string(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "bool": pyarrow.bool_(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    parts, size = [], 0
    for part in _ask(path, _RECORDS_AT_ONCE, dict(columns)):
        size += len(part)
        if size > _MOST_BYTES:
            raise FaultError(f"it unfolds to more than {_MOST_BYTES} bytes")
        parts.append(pyarrow.ipc.open_stream(part).read_all().cast(schema))
    return pyarrow.concat_tables(parts) if parts else schema.empty_table()


def _ask(path: Path, at_once: int, columns: dict[str, str] | None) -> Iterator[bytes]:
    check_plain(path)
    return _READER.ask({"path": str(path.absolute()), "rows": at_once, "columns": columns, "most": _MOST_ROWS})

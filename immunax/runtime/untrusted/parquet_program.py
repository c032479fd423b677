"""Reads parquet files; imported in a child process alone (:mod:`.confined`).

What a page unfolds to, no one knows before it is unfolded: a footer claims what it likes, and a dictionary of one long text
makes any number of rows of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from immunax.runtime.untrusted.unfold import open_unfolded

pyarrow.set_memory_pool(pyarrow.system_memory_pool())

_PART = 4 << 20
"""Characters from which on rows are sent."""
_TYPES = {"string": ("string", "large_string"), "int64": ("int64",), "float64": ("double",), "bool": ("bool",)}


def answer(request: dict[str, Any]) -> Iterator[bytes]:
    """The rows of ``path``, at most ``rows`` at a time: as JSON, or as Arrow's stream where ``columns`` says what they are."""
    path = Path(request["path"])
    with open_unfolded(path) as file:
        source = file if path.suffix.lower() != ".gz" else pyarrow.BufferReader(file.read())
        opened = parquet.ParquetFile(source, page_checksum_verification=True)
        batches = opened.iter_batches(request["rows"], use_threads=False)
        if request["columns"] is None:
            yield from _as_json(batches)
            return
        _check_columns(opened.schema_arrow, request["columns"])
        if opened.metadata.num_rows > request["most"]:
            raise ValueError(f"it has {opened.metadata.num_rows} rows, more than {request['most']}")
        yield from _as_arrow(batches, opened.schema_arrow.remove_metadata())


def _as_json(batches: Iterator[Any]) -> Iterator[bytes]:
    for batch in batches:
        lines, size = [], 0
        for row in batch.to_pylist():
            lines.append(json.dumps(row, default=_told))
            size += len(lines[-1])
            if size > _PART:
                yield _listed(lines)
                lines, size = [], 0
        yield _listed(lines)


def _listed(lines: list[str]) -> bytes:
    return f"[{','.join(lines)}]".encode()


def _told(value: Any) -> dict[str, str]:
    """A value that JSON has no word for: a date, a decimal, bytes."""
    return {type(value).__name__: str(value)}


def _check_columns(schema: Any, columns: dict[str, str]) -> None:
    if schema.names != list(columns):
        raise ValueError(f"it has columns {', '.join(schema.names)[:200]}; expected {', '.join(columns)}")
    for field in schema:
        if str(field.type) not in _TYPES[columns[field.name]]:
            raise ValueError(f"column {field.name} holds {str(field.type)[:80]}; expected {columns[field.name]}")


def _as_arrow(batches: Iterator[Any], schema: Any) -> Iterator[bytes]:
    for batch in batches:
        if any(column.null_count for column in batch.columns):
            raise ValueError("a cell of it is empty")
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(batch.replace_schema_metadata(None))
        yield sink.getvalue().to_pybytes()

"""Rows of tables: files of cells between delimiters, and parquet."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from immunax.data.text_files import LONGEST, lines, open_text, unreadable
from immunax.runtime.errors import UserError

_ROWS = 1024
"""Rows of a parquet file that are in memory at a time."""


def read_csv(path: Path, delimiter: str, quoted: bool, columns: Sequence[str] | None) -> Iterator[dict[str, str]]:
    """The rows of a csv or tsv file; every cell stays text.

    Args:
      path: the file.
      delimiter: one character.
      quoted: whether quotes may enclose a cell; else one is a character of the text.
      columns: the names of the columns, where the file has no header row.

    Raises:
      UserError: a row has more or fewer cells than there are columns, or two columns have one name.
    """
    if len(delimiter) != 1:
        raise UserError(
            f"data file {path}: form.delimiter={delimiter!r}: expected one character in a file of this kind."
        )
    csv.field_size_limit(LONGEST)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with unreadable(path), open_text(path) as file:
        # strict: a quote that is never closed would swallow the rest of the file as one cell.
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = list(columns) if columns else next((row for row in reader if row), None)
            if header is None:
                raise UserError(f"data file {path} is empty; expected at least one row")
            _check_header(header, path)
            for row in reader:
                if row:
                    _check_width(row, header, path, reader.line_num)
                    yield dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise UserError(
                f"cannot read data file {path}: line {reader.line_num}: {error}; check its quotes"
            ) from error


def _check_header(header: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UserError(f"cannot read data file {path}: two columns are called {twice[0]!r}; rename one")


def _check_width(row: Sequence[str], header: Sequence[str], path: Path, line: int) -> None:
    if len(row) != len(header):
        raise UserError(
            f"cannot read data file {path}: line {line} has {len(row)} cells, the header {len(header)}; "
            "quote cells that hold the delimiter, and keep empty ones"
        )


def read_txt(path: Path, delimiter: str | None, columns: Sequence[str] | None) -> Iterator[dict[str, str]]:
    """The lines of a text file, as the column ``text`` or as cells between a delimiter of any length.

    Raises:
      UserError: a line has another number of cells than there are columns.
    """
    if delimiter and not columns:
        raise UserError(f"data file {path}: form.delimiter={delimiter!r} but no form.columns; name the columns.")
    for number, line in lines(path, newline=None):
        text = line.removesuffix("\n")
        if not delimiter or not columns:
            yield {"text": text}
            continue
        cells = text.split(delimiter)
        if len(cells) != len(columns):
            raise UserError(
                f"cannot read data file {path}: line {number} has {len(cells)} cells between {delimiter!r}; "
                f"expected {len(columns)}, as form.columns has."
            )
        yield dict(zip(columns, cells, strict=True))


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, read a part at a time.

    Raises:
      UserError: it is none, or is damaged.
    """
    from pyarrow import parquet

    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(_ROWS):
                yield from batch.to_pylist()
    except Exception as error:  # what a damaged file raises comes as a dozen unrelated types
        raise UserError(
            f"cannot read data file {path}: it is not a parquet file, or a damaged one ({type(error).__name__})"
        ) from error

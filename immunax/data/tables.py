"""Rows of tables: files of cells between delimiters, and parquet."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from immunax.data.text_files import LONGEST, lines, lines_of, open_text, unreadable
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import parquet


def read_csv(path: Path, delimiter: str | None, tabs: bool, columns: Sequence[str] | None) -> Iterator[dict[str, str]]:
    """The rows of a csv or tsv file; every cell stays text.

    A column without a name, as an index that was saved has or a comma at the end of each line makes, is read past.

    Args:
      path: the file.
      delimiter: one character; None is the one that a first line ``sep=;`` names, as spreadsheets write it, else the usual one.
      tabs: whether that is the tab, and a quote is a character of the text; else quotes may enclose a cell.
      columns: the names of the columns, where the file has no header row.

    Raises:
      UserError: a row has more or fewer cells than there are columns, two columns have one name, or none has any.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise UserError(
            f"data file {path}: form.delimiter={delimiter!r}: expected one character in a file of this kind."
        )
    csv.field_size_limit(LONGEST)
    # A tsv file has no quotes to honour: a lone one is a character of the text.
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    with unreadable(path), open_text(path) as file:
        said, start, text = _told_delimiter(lines_of(file, path))
        delimiter = delimiter or said or ("\t" if tabs else ",")
        # strict: a quote that is never closed would swallow the rest of the file as one cell.
        reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = list(columns) if columns else next((row for row in reader if row), None)
            if header is None:
                raise UserError(f"data file {path} is empty; expected at least one row")
            _check_header(header, path)
            for row in reader:
                if row:
                    _check_width(row, header, path, start + reader.line_num)
                    yield {name: cell for name, cell in zip(header, row, strict=True) if name.strip()}
        except csv.Error as error:
            raise UserError(
                f"cannot read data file {path}: line {start + reader.line_num}: {error}; check its quotes"
            ) from error


def _told_delimiter(text: Iterator[str]) -> tuple[str | None, int, Iterator[str]]:
    """The delimiter that the first line names, how many lines that took, and the lines that follow."""
    first = next(text, "")
    told = re.fullmatch(r"sep=(.)[\r\n]+", first, re.IGNORECASE)
    if told:
        return told[1], 1, text
    return None, 0, itertools.chain([first] if first else [], text)


def _check_header(header: Sequence[str], path: Path) -> None:
    named = [name for name in header if name.strip()]
    if not named:
        raise UserError(f"cannot read data file {path}: no column has a name; name them with form.columns")
    twice = [name for name, count in Counter(named).items() if count > 1]
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
    try:
        yield from parquet.rows(path)
    except parquet.FaultError as error:
        raise UserError(
            f"cannot read data file {path}: it is not a parquet file, or a damaged one ({error})"
        ) from error

"""Reading the rows of a local file, one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunax.data.json_files import read_json_rows
from immunax.data.tables import read_csv, read_parquet, read_txt
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.lfs import refuse_pointer

Row = dict[str, Any]

_KINDS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True)
class Form:
    """What a file's name does not tell about its contents.

    Attributes:
      field: the key that holds the rows, in a JSON file that is one object.
      delimiter: what separates the cells of a csv file, where it is not the usual character; or of each line of a txt file,
        where that has cells: any text then.
      columns: the names of the columns, in a csv or tsv file without a header row; needed where a txt file has cells.
    """

    field: str | None = None
    delimiter: str | None = None
    columns: Sequence[str] | None = None


def read_file(path: Path, form: Form) -> Iterator[Row]:
    """Reads a local file row by row: only a part of it is in memory at a time, but for a JSON file that is one document.

    Args:
      path: json, jsonl, csv, tsv, parquet or txt, each also gzipped.
      form: what the file's name does not tell.

    Yields:
      One mapping a row, with the columns that just this row has; a text file without cells, or a JSON list of strings, has
      the one column ``text``.

    Raises:
      UserError: the file is missing, empty, malformed or of an unknown kind.
    """
    if not path.is_file():
        raise UserError(f"no data file {path}.{_neighbour(path)}")
    if path.stat().st_size == 0:
        raise UserError(f"data file {path} is empty; expected at least one row")
    refuse_pointer(path)
    empty = True
    for row in _rows(path, form):
        empty = False
        yield row
    if empty:
        raise UserError(f"data file {path} holds no rows; expected at least one")


def _rows(path: Path, form: Form) -> Iterator[Row]:
    kind = kind_of(path.name)
    if kind == "json":
        return read_json_rows(path, form.field)
    if kind == "parquet":
        return read_parquet(path)
    if kind == "text":
        return read_txt(path, form.delimiter, form.columns)
    return read_csv(path, form.delimiter, stem(path.name).endswith(".tsv"), form.columns)


def stem(name: str) -> str:
    """A file's name in lower case, without ``.gz``."""
    return name.lower().removesuffix(".gz")


def kind_of(name: str) -> str:
    """The kind of a file, by its name.

    Args:
      name: the file's name, or its address.

    Returns:
      ``json``, ``csv``, ``parquet`` or ``text``.

    Raises:
      UserError: the name has none of the known endings.
    """
    suffix = Path(stem(name)).suffix
    if suffix not in _KINDS:
        raise UserError(f"data file {name}: unknown kind {suffix!r}; expected one of {', '.join(_KINDS)} (or .gz)")
    return _KINDS[suffix]


def _neighbour(path: Path) -> str:
    """The nearest thing that does exist: a file in the same folder, or the first folder that is missing."""
    if path.parent.is_dir():
        return nearest(path.name, (other.name for other in path.parent.iterdir())) or " Check data.root and the path."
    missing = next(folder for folder in [*reversed(path.parents)] if not folder.is_dir())
    return f" Folder {missing} does not exist; set data.root=DIR to the folder that holds the sets."

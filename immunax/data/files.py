"""Reading the rows of a local file through ``datasets``."""

import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunax.data.causes import cause, open_text
from immunax.runtime.errors import UserError, nearest

Row = dict[str, Any]

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".txt": "text"}


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


def read_file(path: Path, form: Form) -> list[Row]:
    """Reads every row of a local file; nothing is left behind in any cache.

    Args:
      path: json, jsonl, csv, tsv, parquet or txt, each also gzipped.
      form: what the file's name does not tell.

    Returns:
      One mapping a row; a text file without cells, or a JSON list of strings, has the one column ``text``.

    Raises:
      UserError: the file is missing, empty, malformed or of an unknown kind.
    """
    if not path.is_file():
        raise UserError(f"no data file {path}.{_neighbour(path)}")
    if path.stat().st_size == 0:
        raise UserError(f"data file {path} is empty; expected at least one row")
    builder = builder_of(path.name)
    with tempfile.TemporaryDirectory() as cache:
        try:
            rows = _load(builder, path, form, cache)
        # datasets wraps whatever goes wrong in a reader, so the cause is looked up in the file itself.
        except Exception as error:
            raise UserError(f"cannot read data file {path}: {cause(path, builder, form.field, error)}") from error
    if not rows:
        raise UserError(f"data file {path} holds no rows; expected at least one")
    return _split(rows, path, form) if builder == "text" and form.delimiter else rows


def _split(rows: Sequence[Row], path: Path, form: Form) -> list[Row]:
    if not form.columns:
        raise UserError(f"data file {path}: form.delimiter={form.delimiter!r} but no form.columns; name the columns.")
    found = []
    for number, row in enumerate(rows, 1):
        cells = row["text"].split(form.delimiter)
        if len(cells) != len(form.columns):
            raise UserError(
                f"cannot read data file {path}: line {number} has {len(cells)} cells between {form.delimiter!r}; "
                f"expected {len(form.columns)}, as form.columns has."
            )
        found.append(dict(zip(form.columns, cells, strict=True)))
    return found


def _load(builder: str, path: Path, form: Form, cache: str) -> list[Row]:
    import datasets

    options: dict[str, Any] = {}
    if builder == "json" and form.field:
        options["field"] = form.field
    if builder == "csv":
        options = {**_cells(path, form), "keep_default_na": False}
        if form.columns:
            options["column_names"] = list(form.columns)
        # Without this, a column of digits would come back as numbers.
        options["features"] = datasets.Features({name: datasets.Value("string") for name in _header(path, form)})
    # Not load_dataset: that tells the Hub of each read, of local files too.
    read = getattr(datasets.Dataset, f"from_{builder}")
    with quiet():
        table = read(str(path), cache_dir=cache, keep_in_memory=True, **options)
    return [dict(row) for row in table]


def _cells(path: Path, form: Form) -> dict[str, Any]:
    tabs = stem(path.name).endswith(".tsv")
    # A tsv file has no quotes to honour: a lone one is a character of the text.
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    return {"delimiter": form.delimiter or ("\t" if tabs else ","), "quoting": quoting}


def _header(path: Path, form: Form) -> list[str]:
    if form.columns:
        return list(form.columns)
    with open_text(path) as file:
        return next(csv.reader(file, **_cells(path, form)))


@contextmanager
def quiet() -> Iterator[None]:
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


def stem(name: str) -> str:
    """A file's name in lower case, without ``.gz``."""
    return name.lower().removesuffix(".gz")


def builder_of(name: str) -> str:
    """The ``datasets`` builder for a file's name.

    Args:
      name: the file's name, or its address.

    Returns:
      ``json``, ``csv``, ``parquet`` or ``text``.

    Raises:
      UserError: the name has none of the known endings.
    """
    suffix = Path(stem(name)).suffix
    if suffix not in _BUILDERS:
        raise UserError(f"data file {name}: unknown kind {suffix!r}; expected one of {', '.join(_BUILDERS)} (or .gz)")
    return _BUILDERS[suffix]


def _neighbour(path: Path) -> str:
    """The nearest thing that does exist: a file in the same folder, or the first folder that is missing."""
    if path.parent.is_dir():
        return nearest(path.name, (other.name for other in path.parent.iterdir())) or " Check data.root and the path."
    missing = next(folder for folder in [*reversed(path.parents)] if not folder.is_dir())
    return f" Folder {missing} does not exist; set data.root=DIR to the folder that holds the sets."

"""What a figure consists of, as ``figure.yaml`` beside an experiment's sweeps says it: panels and tables, each a question."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from immunax.runs.options import TABLES, Options, parse
from immunax.runtime.errors import UserError, check_choice, nearest

FILE = "figure.yaml"
_KEYS = ("title", "made", "across", "panels", "tables")
_OWN = ("title", "x_label", "y_label", "legend", "limits", "fit")
"""Of a panel or a table, beside the words of ``immunax.results``."""
_ELSEWHERE = ("out", "every")
_MADE = tuple(name for name in TABLES if name != "columns")
FITS = ("power",)


@dataclass(frozen=True)
class Part:
    """A panel, or a table.

    Attributes:
      options: the question.
      title: above it.
      x_label, y_label, legend: what stands at the axes and above the legend; None for the names of columns.
      limits: of the vertical axis, or of a matrix's colours; None for those of the data.
      fit: the lines that are laid through a panel's means, ``power`` for a power law; None for none.
    """

    options: Options
    title: str = ""
    x_label: str | None = None
    y_label: str | None = None
    legend: str | None = None
    limits: tuple[float, float] | None = None
    fit: str | None = None


@dataclass(frozen=True)
class Spec:
    """A figure.

    Attributes:
      title: above all panels.
      made: by table, columns that are computed from others: SQL by name.
      panels: of the picture, ``across`` in a row.
      tables: below one another.
    """

    title: str
    panels: tuple[Part, ...]
    tables: tuple[Part, ...]
    made: Mapping[str, Mapping[str, str]]
    across: int = 3


def read_spec(path: Path) -> Spec:
    """Reads a figure's description.

    Args:
      path: of the YAML file.

    Raises:
      UserError: it is missing, no YAML, or says something else than a figure.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(said, dict):
        raise UserError(f"{path}: expected the keys {', '.join(_KEYS)}.")
    for key in said:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}.{nearest(str(key), _KEYS)} There is: {', '.join(_KEYS)}.")
    made = said.get("made") or {}
    if not isinstance(made, dict) or any(name not in _MADE or not isinstance(made[name], dict) for name in made):
        raise UserError(f"{path}: made: expected columns for {', '.join(_MADE)}, SQL by name.")
    parts = {name: _parts(path, name, said.get(name) or []) for name in ("panels", "tables")}
    if not parts["panels"] and not parts["tables"]:
        raise UserError(f"{path}: has neither panels nor tables.")
    across = said.get("across", 3)
    if not isinstance(across, int) or across < 1:
        raise UserError(f"{path}: across={across}: expected how many panels stand in a row, at least 1.")
    return Spec(str(said.get("title", "")), parts["panels"], parts["tables"], made, across)


def _parts(path: Path, name: str, said: Any) -> tuple[Part, ...]:
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise UserError(f"{path}: {name}: expected a list of questions.")
    drawn = name == "panels"
    return tuple(_part(f"{path}: {name}[{number}]", each, drawn) for number, each in enumerate(said))


def _part(where: str, said: Mapping[str, Any], drawn: bool) -> Part:
    own = {key: said[key] for key in _OWN if key in said}
    for key in said:
        if key in _ELSEWHERE:
            raise UserError(f"{where}: {key}: is said on the command line of immunax.figure; leave it out.")
    try:
        options = parse([f"{key}={_word(value)}" for key, value in said.items() if key not in _OWN])
        if "limits" in own:
            low, high = own["limits"]
            own["limits"] = float(low), float(high)
        if own.get("fit") is not None:
            check_choice("fit", str(own["fit"]), FITS)
    except (UserError, TypeError, ValueError) as error:
        told = error if isinstance(error, UserError) else f"limits={own['limits']}: expected two numbers, as [0, 1]."
        raise UserError(f"{where}: {told}") from error
    if drawn != (options.plot is not None):
        raise UserError(f"{where}: {'give plot=lines, points, bars or matrix' if drawn else 'plot= is for panels'}.")
    return Part(options, **own)


def _word(value: Any) -> str:
    """A value as the command line has it: a name with a comma stands in double quotes."""
    if isinstance(value, list):
        return ",".join(f'"{each}"' if "," in str(each) else str(each) for each in value)
    return str(value)

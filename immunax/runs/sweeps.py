"""The jobs that a sweep is to run, by the names of their folders: from what Hydra wrote down as it began."""

from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from immunax.runs.find import SWEEP
from immunax.runtime.errors import UserError
from immunax.runtime.sweeps import names
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import parse_yaml, read_object

MOST = 100_000
"""Jobs of one sweep."""

_GRID = "sweepers.Grid"
"""What runs every job of a grid; others choose as they go."""


def jobs_of(folder: Path) -> frozenset[str]:
    """Names of the folders that a sweep makes, or that its runs have from another line.

    Args:
      folder: of the sweep.

    Returns:
      Nothing where they are not known: another sweeper chooses as it goes, and other names are the user's own.
    """
    try:
        said = parse_yaml(read_bytes(folder / SWEEP), str(folder / SWEEP))
        elsewhere = _elsewhere(folder)
        return frozenset(elsewhere.get(name, name) for name in islice(_names(said["hydra"]), MOST))
    except (UserError, HydraException, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        return frozenset()


def _elsewhere(folder: Path) -> dict[str, str]:
    file = folder / names.ELSEWHERE
    found = read_object(file) if file.exists() else {}
    return {name: other for name, other in found.items() if isinstance(other, str)}


def _names(hydra: Any) -> Iterator[str]:
    if not str(hydra["sweeper"]["_target_"]).endswith(f".{_GRID}") or names.RESOLVER not in hydra["sweep"]["subdir"]:
        return
    excluded = hydra["job"]["config"]["override_dirname"]["exclude_keys"]
    given = [f"{name}={value}" for name, value in (hydra["sweeper"].get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*given, *hydra["overrides"]["task"]])
    # The last of two with one key is the one that counts.
    told = {each.get_key_element(): each for each in overrides if each.key_or_group not in excluded}
    for job in product(*map(_texts, told.values())):
        yield names.called(job)


def _texts(override: Override) -> Sequence[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in islice(override.sweep_string_iterator(), MOST)]
    return [f"{key}={override.get_value_element_as_str()}"]

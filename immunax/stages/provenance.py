"""The run that a model on disk comes from, and what of its manifest a later command goes by."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from immunax.runtime import console, manifest
from immunax.stages.export import ADAPTER, MODEL, START
from immunax.stages.setup import AUTO


def run_of(path: str | Path | None, exports: tuple[str, ...] = (MODEL, ADAPTER, START)) -> Mapping[str, Any] | None:
    """The manifest of the run that left a model, or None.

    Args:
      path: of the run, of a folder that it exported, or a link to one; of anything else, or None, no run is known.
      exports: the folders that count.

    Raises:
      UserError: the manifest cannot be read.
    """
    if path is None:
        return None
    named = Path(path).expanduser()
    # A link may lead to a run, or stand in one whose weights lie on another disk.
    for run in (run for folder in (named.resolve(), named.absolute()) for run in _runs(folder, exports)):
        if (run / manifest.FILE).is_file():
            return manifest.read(run)
    return None


def made_by(path: str | Path | None) -> Mapping[str, Any] | None:
    """The manifest of the run of ``immunax.train`` that made a model, or None: the start model that it left beside was not made.

    Args:
      path: as for :func:`run_of`.

    Raises:
      UserError: the manifest cannot be read.
    """
    record = run_of(path, (MODEL, ADAPTER))
    return record if record is not None and "defense" in record["config"] else None


def computed_as_made(config: DictConfig) -> DictConfig:
    """The configuration with the dtype of the run that left its model, where it names none itself; said in one line.

    A model that was trained in float32, as the organism always is, is another one in bfloat16.

    Args:
      config: with the groups ``model`` and ``compute``.

    Raises:
      UserError: the run's manifest cannot be read.
    """
    record = run_of(config.model.get("path")) if config.compute.dtype == AUTO else None
    computed = None if record is None else record["config"].get("compute")
    dtype = computed.get("dtype", AUTO) if isinstance(computed, Mapping) else AUTO
    if dtype == AUTO:
        return config
    console.note(f"compute.dtype={dtype}, as the run that left the model has it")
    changed = OmegaConf.create(config)
    changed.compute.dtype = dtype
    return changed


def _runs(folder: Path, exports: tuple[str, ...]) -> Iterator[Path]:
    """The folders of runs that a folder may be of."""
    yield folder
    if folder.name in exports:
        yield folder.parent

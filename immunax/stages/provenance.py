"""The runs that a model on disk comes from, and what of their manifests a later command goes by."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from immunax.models import hub, peft
from immunax.runtime import console, manifest, mirror
from immunax.runtime.user_config import UserConfig
from immunax.stages.export import ADAPTER, START
from immunax.stages.setup import AUTO, MODEL


class Lesson(NamedTuple):
    """What one run taught a model, as the manifests of later runs pass it on.

    Attributes:
      data: the run's group ``data``.
      digest: SHA-256 of what that made, None where the run did not say it.
      against: attack families that its defense trained against; empty for a guard.
    """

    data: Mapping[str, Any]
    digest: str | None
    against: tuple[str, ...] = ()


def lessons(path: str | Path | None) -> tuple[Lesson, ...]:
    """Everything that runs taught a model, the latest first: a model may be a defended one that was defended or attacked again.

    What attacks taught it is left out: those examples are no defense's.

    Args:
      path: as for :func:`run_of`; a folder of adapters passes on what their base was taught.

    Raises:
      UserError: the manifest, or the adapter's configuration, cannot be read.
    """
    record = run_of(path)
    if record is None:
        folder = None if path is None else mirror.local(path)
        return () if folder is None or not peft.is_adapter(folder) else lessons(hub.base_of(folder).path)
    config = record["config"]
    before = tuple(
        Lesson(each["data"], each["digest"], tuple(each["against"])) for each in record.get("taught_before", ())
    )
    defended, guarded = made_by(path) is not None, (config.get("start") or {}).get("defense") is not None
    if not (defended or guarded):
        return before
    against = tuple(record.get("trained_against") or ()) if defended else ()
    return Lesson(config["data"], record["digests"].get("data"), against), *before


def passed_on(taught: tuple[Lesson, ...]) -> list[dict[str, Any]]:
    """The lessons as a manifest holds them for later runs, under ``taught_before``."""
    return [each._asdict() for each in taught]


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
    named = mirror.local(path)
    # A link may lead to a run, or stand in one whose weights lie on another disk.
    places = (named,) if mirror.is_mirrored(named) else (named.resolve(), named.absolute())
    for run in (run for folder in places for run in _runs(folder, exports)):
        if mirror.fetch(run / manifest.FILE).is_file():
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


def computed_as_made(config: UserConfig) -> UserConfig:
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
    return config.with_values({"compute.dtype": dtype})


def _runs(folder: Path, exports: tuple[str, ...]) -> Iterator[Path]:
    """The folders of runs that a folder may be of."""
    yield folder
    if folder.name in exports:
        yield folder.parent

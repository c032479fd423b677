"""A run's folder belongs to one configuration and to one set of inputs, and is made once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from immunax.runtime import console, manifest, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.sweeps import outcome
from immunax.runtime.user_config import UserConfig
from immunax.stages.export import ADAPTER, START
from immunax.stages.setup import MODEL

_FREE = (
    "outputs",
    "run",
    "tracker",
    "export_dtype",
    "export_adapter",
    "key",
    "bundle_key",
    "policy",
    "trained_against",
    "mesh",
    "objective",
    "trace",
    "compute.peak",
    "trainer.checkpoint_every",
    "trainer.keep",
    "trainer.keep_last",
    "trainer.keep_best",
)
_EXPORTS = ("export_dtype", "export_adapter")


def check_same_run(folder: Path, config: UserConfig) -> None:
    """Refuses to go on in a folder whose manifest tells of another configuration.

    Args:
      folder: of the run; may be new.
      config: composed; where the outputs lie, who tracks them, how weights are exported, what is kept and on which
        devices it runs may differ; so may the policy and the key of a certificate, which rests on the same records.

    Raises:
      UserError: it differs, or the manifest cannot be read.
    """
    if not (folder / manifest.FILE).exists():
        return
    record = manifest.read(folder)
    before = dict(_leaves(record["config"]))
    now = dict(_leaves(config.plain))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changed = [name for name in changed if not any(f"{name}.".startswith(f"{free}.") for free in _FREE)]
    if changed:
        name = changed[0]
        raise UserError(
            f"{folder} holds a run with {name}={before.get(name)!r}, not {now.get(name)!r}: "
            "choose another run=NAME, or delete that folder."
        )
    if len(manifest.codes(folder / manifest.FILE)) > len(record.get("code") or [""]):
        done = "was made" if "ended" in record else "began"
        console.note(f"{folder} {done} with other code than this; to make it with this one alone, delete it")


def check_same_inputs(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuses to go on in a folder whose manifest tells of other contents under the same paths.

    Args:
      folder: of the run; may be new.
      digests: SHA-256 of the data and of the model's files, by name.

    Raises:
      UserError: one differs, is new or is gone, or the manifest cannot be read.
    """
    if not (folder / manifest.FILE).exists():
        return
    before = manifest.read(folder).get("digests") or {}
    # What a run has made is listed beside its inputs, under the folder that it is in.
    inputs = {name: value for name, value in before.items() if not name.startswith(f"{MODEL}/")}
    changed = sorted(name for name in digests.keys() | inputs if inputs and digests.get(name) != inputs.get(name))
    if changed:
        was, now = ((each.get(changed[0]) or "none")[:12] for each in (inputs, digests))
        raise UserError(
            f"{folder} holds a run that began with another {changed[0]!r} (SHA-256 {was}, now {now}): put that back, "
            "choose another run=NAME, or delete that folder."
        )


def is_finished(folder: Path, config: UserConfig, exports: Sequence[str] = (), checkpoints: str | None = None) -> bool:
    """Whether a run has ended and left all that is asked for; said in one line.

    Args:
      folder: of the run, whose configuration and inputs are those of before.
      config: composed.
      exports: folders that it leaves in its own in any case.
      checkpoints: the folder in the run's that another export can be made from; None where it is made by running again.

    Raises:
      UserError: another export is asked for, and the checkpoints are gone.
    """
    record = manifest.read(folder) if (folder / manifest.FILE).exists() else {}
    if "ended" not in record:
        return False
    wanted = [*exports, *((ADAPTER, START) if config.export_adapter else ())]
    changed = [name for name in _EXPORTS if record["config"].get(name) != config.get(name)]
    missing = [name for name in wanted if not mirror.is_whole(folder / name)]
    if not changed and not missing:
        outcome.tell(folder, record["ended"])
        return True
    if checkpoints is not None and not mirror.is_there(folder / checkpoints):
        what = f"{changed[0]}={config[changed[0]]}" if changed else f"{missing[0]}/"
        raise UserError(
            f"{folder} holds a finished run without its checkpoints, which {what} would be made from: choose another "
            "run=NAME, or delete that folder."
        )
    return False


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node

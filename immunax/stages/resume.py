"""A run's folder belongs to one configuration and to one set of inputs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from immunax.runtime import manifest
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
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
)


def check_same_run(folder: Path, config: UserConfig) -> None:
    """Refuses to go on in a folder whose manifest tells of another configuration.

    Args:
      folder: of the run; may be new.
      config: composed; where the outputs lie, who tracks them and how weights are exported
        may differ; so may the policy and the key of a certificate, which rests on the same records.

    Raises:
      UserError: it differs, or the manifest cannot be read.
    """
    if not (folder / manifest.FILE).exists():
        return
    before = dict(_leaves(manifest.read(folder)["config"]))
    now = dict(_leaves(config.plain))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changed = [name for name in changed if name.split(".")[0] not in _FREE]
    if changed:
        name = changed[0]
        raise UserError(
            f"{folder} holds a run with {name}={before.get(name)!r}, not {now.get(name)!r}: "
            "choose another run=NAME, or delete that folder."
        )


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


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node

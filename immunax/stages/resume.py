"""A run's folder belongs to one configuration."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from immunax.runtime import manifest
from immunax.runtime.errors import UserError

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


def check_same_run(folder: Path, config: DictConfig) -> None:
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
    now = dict(_leaves(OmegaConf.to_container(config, resolve=True)))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changed = [name for name in changed if name.split(".")[0] not in _FREE]
    if changed:
        name = changed[0]
        raise UserError(
            f"{folder} holds a run with {name}={before.get(name)!r}, not {now.get(name)!r}: "
            "choose another run=NAME, or delete that folder."
        )


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node

"""May a stranger's configuration be built? A replayed certificate names the classes that its reader's machine is to run."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from hydra.utils import get_object

from immunax.runtime.errors import UserError

_ROOT = "immunax."
_KEYS = ("_target_", "_convert_")
_FAR = ("immunax.judges.endpoint", "immunax.judges.llm", "immunax.data.online")
"""Modules that speak to other machines, which a stranger may not choose."""


def check_config(config: Any) -> None:
    """Refuses a configuration that could do more than build this package's own dataclasses.

    Args:
      config: plain mappings, lists and values.

    Raises:
      UserError: a ``_target_`` is no dataclass that is defined in this package, or speaks to other machines; there is another
        key of Hydra's, or an interpolation.
    """
    for path, key, value in _leaves(config, ""):
        if key.startswith("_") and key not in _KEYS:
            raise UserError(
                f"the certificate's configuration has {path}, a key that is not to be obeyed; do not replay it."
            )
        if isinstance(value, str) and "${" in value:
            raise UserError(f"the certificate's configuration has an interpolation at {path}; do not replay it.")
        if key == "_target_":
            _check_target(path, value)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        at = f"{path}.{name}".lstrip(".")
        yield at, str(name), child
        yield from _leaves(child, at)


def _check_target(path: str, target: Any) -> None:
    if isinstance(target, str) and target.startswith(_ROOT):
        found = get_object(target)
        own = isinstance(found, type) and is_dataclass(found) and found.__module__.startswith(_ROOT)
        if own and not found.__module__.startswith(_FAR):
            return
    raise UserError(f"the certificate's configuration has {path}={target!r}, which is not to be run; do not replay it.")

"""The configuration that the user of this process gave, on the command line and in files of his own.

Objects are built from a :class:`UserConfig` alone, and :mod:`~immunax.runtime.launch` alone makes one. What files from
elsewhere say is plain mappings, which nothing here takes; :func:`~immunax.runtime.admission.admit` does, by a table.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from immunax.runtime.nodes import built, importable


@dataclass(frozen=True)
class UserConfig:
    """A composed configuration, or a node of one; read by names, ``given.trainer.steps``.

    Attributes:
      plain: nested dicts, lists and values, every interpolation resolved.
    """

    plain: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.plain:
            raise AttributeError(f"the configuration has no {name}")
        return self[name]

    def __getitem__(self, name: str) -> Any:
        value = self.plain[name]
        return UserConfig(value) if isinstance(value, Mapping) else value

    def __contains__(self, name: str) -> bool:
        return name in self.plain

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or what stands for one that there is not."""
        return self[name] if name in self.plain else default

    def at(self, path: str) -> Any:
        """The plain value at a path such as ``trainer.optimizer.warmup``; None where there is none."""
        node: Any = self.plain
        for name in path.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    def with_values(self, changes: Mapping[str, Any]) -> "UserConfig":
        """Another configuration, with plain values at some paths.

        Args:
          changes: by path, of fields that there are.
        """
        changed = deepcopy(dict(self.plain))
        for path, value in changes.items():
            *parents, name = path.split(".")
            node = changed
            for parent in parents:
                node = node[parent]
            node[name] = value
        return UserConfig(changed)

    def build(self, name: str) -> Any:
        """The object that a node describes.

        Args:
          name: of the node.

        Raises:
          UserError: an object refuses its values.
        """
        return built(self.plain[name], importable)

"""What is said of an override that does not fit the configuration."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from immunax.runtime.errors import UserError, nearest


def misfit(
    key: str, value: Any, node: Any, expected: str, config: DictConfig, groups: Mapping[str, list[str]]
) -> UserError:
    """A value of another kind than its field's.

    Args:
      key, value: as given, the value parsed.
      node: what the configuration has there.
      expected: the kind.
      config: as composed so far, with Hydra's own node.
      groups: choices by group.
    """
    given = f"{key}={'null' if value is None else value}"
    if not isinstance(node, DictConfig):
        return UserError(f"{given}: expected {expected}, as in {key}={node}")
    # The defaults list calls a group that fills another node "group@node".
    filled = next((name for name in config.hydra.runtime.choices if name.endswith(f"@{key}")), None)
    if filled:
        choices = groups[filled.partition("@")[0]]
        choice = value if value in choices else "NAME"
        return UserError(f"{given}: did you mean {filled}={choice}? Choices: {', '.join(choices)}")
    names = [str(name) for name in node if not str(name).startswith("_")]
    example = f", such as {key}.{names[0]}=VALUE" if names else ""
    return UserError(f"{given}: expected {expected}{example}. {key} has: {', '.join(names) or 'none'}")


def unknown(path: list[str], present: list[str], config: DictConfig, groups: Mapping[str, list[str]]) -> UserError:
    """A field that there is not.

    Args:
      path: to it, by name.
      present: the fields that there are beside it.
      config, groups: as for :func:`misfit`.
    """
    name, parent = path[-1], ".".join(path[:-1])
    if not parent and name in groups:
        return UserError(f"no {name} is chosen: add {name}=NAME. Choices: {', '.join(groups[name])}")
    names = present if parent else sorted({*present, *(group for group in groups if "/" not in group)})
    where = f"{parent} has" if parent else "there are"
    return UserError(f"unknown field {'.'.join(path)}.{nearest(name, names)} {where}: {', '.join(names)}")

"""Where things stood before: recorded configurations name classes by paths that may have moved since, and mean the same ones."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    f"immunax.{old}.{module}": f"immunax.{new}.{module}"
    for old, new, modules in (
        (
            "defenses",
            "outer",
            ("attacker", "attacker_population", "defense", "exposure", "feed", "replay", "simulation", "training"),
        ),
        ("attacks", "campaign", ("budget", "grid", "population", "programs", "search")),
    )
    for module in modules
}
"""Modules that a configuration could name, by their old path."""

_START = {"_target_": "immunax.stages.guard.Start"}
"""What a group ``start`` is, which did not say so once."""

_OF_HYDRA = "_convert_"
"""Once told Hydra what it should make of lists; plain ones are made always."""


def current(node: Any) -> Any:
    """A plain configuration as it is written today: every old path of a ``_target_`` replaced, every class named.

    Args:
      node: nested dicts and lists, as a manifest or a certificate recorded them.
    """
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if key != _OF_HYDRA}
        named = {**_START, **kept} if kept.keys() == {"defense", "trainer", "fingerprint"} else kept
        return {key: current_path(value) if key == "_target_" else current(value) for key, value in named.items()}
    return [current(each) for each in node] if isinstance(node, (list, tuple)) else node


def current_path(target: Any) -> Any:
    """A ``_target_`` as it is written today.

    Args:
      target: the path of a class, as a record has it.
    """
    module, _, name = str(target).rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else target

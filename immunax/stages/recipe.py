"""A published run, made smaller in one number, and cut to the context of the model that takes it.

``recipe.scale`` shrinks amounts and nothing else: outer steps, steps of a warm-up, inner steps and checks of a simulated attack,
and the dialogs of each source, by its ``limit`` or, where it has none, by its ``share``. What a step computes (batch sizes,
rates, weights, lengths) stays, and so does a generated world.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from immunax.data.sources import FEWEST
from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
from immunax.stages.setup import shape

SOURCE = "immunax.data.sources.Source"


@dataclass(frozen=True)
class Recipe:
    """Which published run it is.

    Attributes:
      name: as ``recipe=NAME`` has it.
      scale: the share of its steps and dialogs that is taken, above 0 and at most 1, and never less than one step.
      trainers: the nodes of the configuration that hold its :class:`~immunax.outer.training.Training`.
    """

    name: str
    scale: float = 1.0
    trainers: tuple[str, ...] = ("trainer",)

    def __post_init__(self):
        if not 0 < self.scale <= 1:
            raise UserError(
                f"recipe.scale={self.scale}: expected a share of the published steps, above 0 and at most 1."
            )


def applied(config: UserConfig) -> UserConfig:
    """The configuration as it is run: with a recipe's amounts scaled and its lengths cut, and one line that says so.

    Args:
      config: composed; without a node ``recipe`` it is returned as it is.

    Raises:
      UserError: the scale is no share, or the model's shape cannot be read.
    """
    if "recipe" not in config:
        return config
    recipe = config.build("recipe")
    trainers = [path for path in recipe.trainers if config.at(path) is not None]
    changed = {**_amounts(config, trainers, recipe.scale), **_lengths(config, trainers)}
    fitted = config.with_values(changed)
    if changed:
        shown = ", ".join(f"{path} {config.at(path)} -> {value}" for path, value in changed.items())
        console.note(f"recipe {recipe.name} at scale {recipe.scale:g}: {shown}")
    return fitted


def _amounts(config: UserConfig, trainers: list[str], scale: float) -> dict[str, int | float]:
    """What the scale changes, by its place in the configuration."""

    def share(amount: int, least: int = 1) -> int:
        return max(min(least, amount), round(scale * amount))

    found: dict[str, int | float] = {}
    for trainer in trainers:
        found[f"{trainer}.steps"] = share(config.at(f"{trainer}.steps"))
        found |= {path: share(steps) for path, steps in _leaves(config, trainer, "warmup") if steps}
    simulation = config.at("defense.mixture.simulation")
    if simulation is not None:
        # Whole intervals between checks, as long as there are any, so that checks stay as far apart as they were.
        checks = share(simulation["checks"])
        found["defense.mixture.simulation.checks"] = checks
        found["defense.mixture.simulation.steps"] = checks * max(1, math.floor(scale * simulation["steps"] / checks))
    limits = {path: share(limit, FEWEST) for path, limit in _leaves(config, "data", "limit")}
    found |= limits
    if scale < 1:
        sources = (path for path, target in _leaves(config, "data", "_target_", str) if target == SOURCE)
        unlimited = (path for path in map(_parent, sources) if f"{path}.limit" not in limits)
        found |= {f"{path}.share": scale * (config.at(f"{path}.share") or 1.0) for path in unlimited}
    return {path: amount for path, amount in found.items() if amount != config.at(path)}


def _lengths(config: UserConfig, trainers: list[str]) -> dict[str, int]:
    """Lengths beyond the context of the model, cut to it."""
    context = shape(config.build("model")).max_positions
    lengths = {f"{trainer}.max_length": config.at(f"{trainer}.max_length") for trainer in trainers}
    return {path: context for path, length in lengths.items() if length > context}


def _leaves(config: UserConfig, path: str, name: str, kind: type = int) -> Iterator[tuple[str, Any]]:
    """Every leaf of a kind called ``name`` at or below a node, with its place."""
    node = config.at(path)
    if not isinstance(node, Mapping):
        return
    for key in map(str, node):
        if key == name and type(node[key]) is kind:
            yield f"{path}.{key}", node[key]
        else:
            yield from _leaves(config, f"{path}.{key}", name, kind)


def _parent(path: str) -> str:
    return path.rpartition(".")[0]

"""A population of attacks as a grid: the Cartesian product of settings and seeds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from numbers import Integral
from typing import Any

from immunax.attacks.attack import Attack
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.fields import expected

SEED = "tuning.seed"


@dataclass(frozen=True)
class Population:
    """Attacks that differ from one by the settings of a grid.

    Attributes:
      attack: what the members have in common.
      grid: values by the path of a field, such as ``tuning.optimizer.learning_rate: [1e-4, 1e-3]``, ``samples: [10, 100]``
        or ``tuning.lora: [null, {_target_: immunax.models.lora.LoraSpec, rank: 8}]``.
      seeds: of every random key, and of an attack that fine-tunes also of the choice and the order of its data; as many
        members each.
    """

    attack: Attack
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)

    def __post_init__(self):
        for path, values in {**self.grid, SEED: self.seeds}.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise UserError(f"population grid {path}={values!r}: expected a list of at least one value.")
            if any(each in values[:place] for place, each in enumerate(values)):
                raise UserError(f"population grid {path}={values!r}: has a value twice; give each once.")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, Integral):
                raise UserError(f"population seed {seed!r}: expected a whole number.")
        if len(self.seeds) > 1 and not self.attack.random:
            raise UserError(
                f"population seeds={list(self.seeds)}: {type(self.attack).__name__} draws nothing, so that every seed gives the "
                "same weights; give one seed."
            )

    def settings(self) -> tuple[dict[str, Any], ...]:
        """What sets each member apart, in order: the last path varies faster than the first, the seed fastest."""
        axes = {**self.grid, SEED: self.seeds}
        return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

    def members(self) -> tuple[Any, ...]:
        """The attacks, in the order of :meth:`settings`.

        Raises:
          UserError: a path names no field, or a value is not allowed there.
        """
        place = self.attack.seed_field
        return tuple(_changed(self.attack, _seeded(settings, place)) for settings in self.settings())


def _seeded(settings: Mapping[str, Any], place: str | None) -> dict[str, Any]:
    """Settings with the seed in the field that the attack has for it; one that has none draws its random keys by it."""
    others = {path: value for path, value in settings.items() if path != SEED}
    return others if place is None else {**others, place: settings[SEED]}


def _changed(attack: Any, settings: Mapping[str, Any]) -> Any:
    # A whole field before a part of it: tuning.lora before tuning.lora.rank.
    for path in sorted(settings, key=lambda path: path.count(".")):
        attack = _set(attack, path.split("."), settings[path], path)
    return attack


def _set(node: Any, names: Sequence[str], value: Any, path: str) -> Any:
    known = [each.name for each in fields(node)] if is_dataclass(node) else []
    if not is_dataclass(node) or isinstance(node, type) or names[0] not in known:
        owner = "it is unset there" if node is None else f"{type(node).__name__} has {', '.join(known) or 'no fields'}"
        raise UserError(f"population grid {path}: no field {names[0]!r}, {owner}.{nearest(names[0], known)}")
    if len(names) > 1:
        return replace(node, **{names[0]: _set(getattr(node, names[0]), names[1:], value, path)})
    kind = expected(type(node), names[0], value)
    if kind is not None:
        raise UserError(f"population grid {path}={value!r}: expected {kind}.")
    return replace(node, **{names[0]: value})

"""What a certificate's configuration says in full, so that whoever has no code of ours can count cells, steps and examples."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.judges.evaluate import Evaluation
from immunax.runtime.fields import TARGET
from immunax.stages.suite import Suite

_AMOUNTS = ("measured", "transfer_prompts", "harmless_prompts")
_OF_TASK = ("measured", "examples", "samples", "seeds", "exact")
_OF_EVALUATION = ("prompts", "examples", "exact")


def explicit(config: Mapping[str, Any], suite: Suite, evaluation: Evaluation) -> dict[str, Any]:
    """A configuration with what its suite and its judges leave to defaults, as far as tables are checked against it.

    Args:
      config: plain, of a certificate.
      suite, evaluation: built from it.
    """
    attacks = {name: _attack(each, suite.attacks[name]) for name, each in config["suite"]["attacks"].items()}
    said = {**_filled(config["suite"], suite, _AMOUNTS), "attacks": attacks}
    if suite.task is not None:
        said["task"] = _filled(said["task"], suite.task, _OF_TASK)
    if getattr(suite.choices, "count", None) is not None:
        said["choices"] = _filled(said["choices"], suite.choices, ("count",))
    return {**config, "suite": said, "judge": _filled(config["judge"], evaluation, _OF_EVALUATION)}


def _attack(node: Mapping[str, Any], built: Population | Search) -> dict[str, Any]:
    if isinstance(built, Search):
        parts = {name: _attack(each, built.populations[name]) for name, each in node["populations"].items()}
        return {**node, "populations": parts}
    said = _filled(node, built, ("grid", "seeds"))
    tuning = getattr(built.attack, "tuning", None)
    if tuning is not None:
        own = _filled(said["attack"], built.attack, ("tuning",))
        of_tuning = _filled(own["tuning"], tuning, ("optimizer",))
        of_tuning["optimizer"] = _filled(of_tuning["optimizer"], tuning.optimizer, ("learning_rate",))
        said["attack"] = {**own, "tuning": of_tuning}
    return said


def _filled(node: Mapping[str, Any], built: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {**node, **{name: _plain(getattr(built, name)) for name in names if name not in node}}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.init}
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **named}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value

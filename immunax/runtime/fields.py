"""Do the values of a configuration fit the dataclasses they are for?

A node with ``_target_`` is checked against that dataclass: no unknown field, nothing missing, each value of its type.
"""

import dataclasses
import inspect
import numbers
import pkgutil
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from immunax.runtime.errors import UserError, nearest

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def check(config: DictConfig) -> None:
    """Checks every node of a composed configuration that has a ``_target_``.

    Args:
      config: the configuration, without Hydra's own.

    Raises:
      UserError: a field is unknown, missing or of another type, or a ``_target_`` does not exist.
    """
    _walk(config, "")


def expected(owner: Any, name: str, value: Any) -> str | None:
    """What a field of a dataclass expects, where a value does not fit it.

    Args:
      owner: an instance of the dataclass.
      name: of the field.
      value: as it is to stand there, built from its node where it has one.

    Returns:
      The expectation in words, None where the value fits.
    """
    hint = typing.get_type_hints(type(owner))[name]
    return None if _fits(value, hint) else _describe(hint)


def _walk(node: Any, path: str) -> None:
    if isinstance(node, ListConfig):
        for index in range(len(node)):
            if not OmegaConf.is_interpolation(node, index):
                _walk(node[index], f"{path}[{index}]")
    if not isinstance(node, DictConfig):
        return
    if isinstance(node.get("_target_"), str):
        _check_node(node, path)
    for name in map(str, node):
        full = f"{path}.{name}".lstrip(".")
        if OmegaConf.is_missing(node, name):
            raise UserError(f"{full} needs a value: {full}=VALUE")
        if not OmegaConf.is_interpolation(node, name):
            _walk(node[name], full)


def _check_node(node: DictConfig, path: str) -> None:
    target = _resolve(node["_target_"], path)
    if not dataclasses.is_dataclass(target):
        return
    known = {field.name: field for field in dataclasses.fields(target) if field.init}
    hints = typing.get_type_hints(target)
    partial = bool(node.get("_partial_", False)) or bool(node.get("_args_"))
    for name in node:
        name = str(name)
        full = f"{path}.{name}".lstrip(".")
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in known:
            raise UserError(f"unknown field {full}.{nearest(name, known)} {path} has: {', '.join(sorted(known))}")
        if OmegaConf.is_missing(node, name):
            raise UserError(f"{full} needs a value: {full}=VALUE ({_describe(hints[name])})")
        _check_field(node, name, hints[name], full)
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in node and not partial:
            raise UserError(f"{path}.{name} needs a value: +{path}.{name}=VALUE ({_describe(hints[name])})")


def _check_field(node: DictConfig, name: str, hint: Any, full: str, fix: str = "") -> None:
    if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
        return
    value = node[name]
    if _is_mapping(hint) and isinstance(value, DictConfig):
        for key in map(str, value):
            _check_field(value, key, typing.get_args(hint)[1], f"{full}.{key}", f"; ~{full}.{key} leaves it out")
    elif not _fits(value, hint):
        shown = "null" if value is None else repr(value)
        raise UserError(f"{full}={shown}: expected {_describe(hint)}{fix}")


def _resolve(name: str, path: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path}._target_={name}: cannot be imported ({error})") from error


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list, typing.get_origin(typing.Sequence[int])):
        return isinstance(value, Sequence) and not isinstance(value, str) and _items_fit(value, arguments)
    if _is_mapping(hint):
        return isinstance(value, Mapping)
    if _is_node(hint):
        return isinstance(value.get("_target_"), str) if isinstance(value, Mapping) else _is_built(value, hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        # YAML reads 1e-4, without a point, as text on some paths; Hydra's own grammar reads it as a number.
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    return True


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) in (dict, Mapping)


def _is_node(hint: Any) -> bool:
    """Whether values are built from a node of their own, which is checked there."""
    return _is_made(hint) or inspect.isabstract(hint) or getattr(hint, "_is_protocol", False)


def _is_made(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and not inspect.isabstract(hint)


def _is_built(value: Any, hint: Any) -> bool:
    """Whether a value was built from a node; what a protocol asks of it shows only where it is used."""
    if getattr(hint, "_is_protocol", False):
        return value is not None and not isinstance(value, (str, numbers.Real, Sequence))
    return isinstance(value, hint)


def _items_fit(value: Sequence[Any], hints: tuple[Any, ...]) -> bool:
    if not hints:
        return True
    if (len(hints) == 2 and hints[1] is Ellipsis) or len(hints) == 1:
        return all(_fits(item, hints[0]) for item in value)
    return len(value) == len(hints) and all(_fits(item, hint) for item, hint in zip(value, hints, strict=True))


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if _is_mapping(hint):
        return f"a mapping from names to {_describe(arguments[1])}"
    if _is_node(hint):
        name = hint.__name__
        return (
            f"fields with _target_: {hint.__module__}.{name}" if _is_made(hint) else f"fields with _target_ of a {name}"
        )
    if origin is not None:
        return f"a list of {_describe(arguments[0])}" if arguments else "a list"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def same_kind(before: Any, after: Any, nullable: bool = True) -> str | None:
    """Whether an override keeps the kind of value that the configuration file has.

    Args:
      before: the value in the file; None takes anything.
      after: the value given.
      nullable: whether None may take any value's place.

    Returns:
      None when it does, else what was expected.
    """
    if before is None or (after is None and nullable):
        return None
    if isinstance(before, (Mapping, DictConfig)):
        return None if isinstance(after, (Mapping, DictConfig)) else "fields"
    number = isinstance(before, (int, float)) and not isinstance(before, bool)
    if number:
        fits = isinstance(after, (int, float)) and not isinstance(after, bool)
        return None if fits else "a number"
    if isinstance(before, ListConfig):
        return None if isinstance(after, ListConfig) else "a list"
    return None if isinstance(after, type(before)) else _NAMES.get(type(before), type(before).__name__)

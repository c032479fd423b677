"""Do the values of a configuration fit the dataclasses they are for?

A node with ``_target_`` is checked against that dataclass: no unknown field, nothing missing, each value of its type.
"""

import dataclasses
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig

from immunax.runtime.errors import UserError, nearest

TARGET = "_target_"
"""The key of a node that names what it describes."""
_MISSING = "???"
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def check(node: Any, find: Callable[[str], Any], path: str = "", composed: bool = False) -> None:
    """Checks every node of a configuration that has a ``_target_``.

    Args:
      node: plain mappings, lists and values.
      find: what a ``_target_`` names.
      path: of the node, by its names, as messages have it.
      composed: whether the text ``${...}`` stands for a value that is not known yet, and ``???`` for one that has to be given.

    Raises:
      UserError: a field is unknown, missing or of another type, or a ``_target_`` does not exist.
    """
    if isinstance(node, list):
        for index, each in enumerate(node):
            check(each, find, f"{path}[{index}]", composed)
    if not isinstance(node, Mapping):
        return
    if TARGET in node:
        _check_node(node, find, path, composed)
    for name, value in node.items():
        full = f"{path}.{name}".lstrip(".")
        if composed and value == _MISSING:
            raise UserError(f"{full} needs a value: {full}=VALUE")
        check(value, find, full, composed)


def expected(owner: Any, name: str, value: Any) -> str | None:
    """What a field of a dataclass expects, where a value does not fit it.

    Args:
      owner: the dataclass.
      name: of the field.
      value: as it is to stand there, built from its node where it has one.

    Returns:
      The expectation in words, None where the value fits.
    """
    hint = typing.get_type_hints(owner)[name]
    return None if fits(value, hint) else _describe(hint)


def _check_node(node: Mapping[str, Any], find: Callable[[str], Any], path: str, composed: bool) -> None:
    name = node[TARGET]
    try:
        target = find(name)
    except UserError as error:
        raise UserError(f"{path}.{TARGET}={name}: {error}".lstrip(".")) from error
    if not dataclasses.is_dataclass(target):
        return
    known = {field.name: field for field in dataclasses.fields(target) if field.init}
    hints = typing.get_type_hints(target)
    for name, value in node.items():
        full = f"{path}.{name}".lstrip(".")
        if name == TARGET:
            continue
        if name not in known:
            raise UserError(f"unknown field {full}.{nearest(name, known)} {path} has: {', '.join(sorted(known))}")
        if composed and value == _MISSING:
            raise UserError(f"{full} needs a value: {full}=VALUE ({_describe(hints[name])})")
        _check_field(value, hints[name], full, composed)
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in node:
            raise UserError(f"{path}.{name} needs a value: +{path}.{name}=VALUE ({_describe(hints[name])})")


def _check_field(value: Any, hint: Any, full: str, composed: bool, fix: str = "") -> None:
    if composed and _unknown(value):
        return
    if composed and isinstance(value, list):
        value = [each for each in value if not _unknown(each)]
    if _is_mapping(hint) and isinstance(value, Mapping):
        for key, each in value.items():
            left_out = f"; ~{full}.{key} leaves it out"
            _check_field(each, typing.get_args(hint)[1], f"{full}.{key}", composed, left_out)
    elif not fits(value, hint):
        shown = "null" if value is None else repr(value)
        raise UserError(f"{full}={shown}: expected {_describe(hint)}{fix}")


def _unknown(value: Any) -> bool:
    """Whether a value of a configuration that is being composed is not there yet."""
    return isinstance(value, str) and ("${" in value or value == _MISSING)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value, or the node that it is built from, is of a type.

    Args:
      value: plain, or built.
      hint: as annotations have it; of a protocol, the value has to have every name.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list, typing.get_origin(typing.Sequence[int])):
        return isinstance(value, Sequence) and not isinstance(value, str) and _items_fit(value, arguments)
    if _is_mapping(hint):
        return isinstance(value, Mapping) and all(fits(each, arguments[1]) for each in value.values())
    if _is_node(hint):
        return TARGET in value if isinstance(value, Mapping) else _is_built(value, hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        # YAML reads 1e-4, without a point, as text on some paths; Hydra's own grammar reads it as a number.
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    return hint is not str or isinstance(value, str)


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) in (dict, Mapping)


def _is_node(hint: Any) -> bool:
    """Whether values are built from a node of their own, which is checked there."""
    return (
        isinstance(hint, type) and hint is not Any and hint.__module__ != "builtins" and typing.get_origin(hint) is None
    )


def _is_made(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and not inspect.isabstract(hint)


def _is_built(value: Any, hint: Any) -> bool:
    """Whether a value was built from a node, of the class or with the names that a protocol asks for."""
    if not getattr(hint, "_is_protocol", False):
        return isinstance(value, hint)
    asked = {name for base in hint.__mro__ if getattr(base, "_is_protocol", False) for name in _names(base)}
    # Looked up without being called: a property may be slow to make.
    return all(inspect.getattr_static(value, name, None) is not None for name in asked)


def _names(protocol: type) -> list[str]:
    return [name for name in (*vars(protocol), *vars(protocol).get("__annotations__", {})) if not name.startswith("_")]


def _items_fit(value: Sequence[Any], hints: tuple[Any, ...]) -> bool:
    if not hints:
        return True
    if (len(hints) == 2 and hints[1] is Ellipsis) or len(hints) == 1:
        return all(fits(item, hints[0]) for item in value)
    return len(value) == len(hints) and all(fits(item, hint) for item, hint in zip(value, hints, strict=True))


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

"""JSON and YAML of strangers as plain values, within stated limits.

Numbers are finite and fit a machine word, keys stand once, text is text. What these parsers of text say where they break is one
line; that they nest too deeply or ask for too much memory is seen before the rest of the program sees the value.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from immunax.runtime.errors import UserError, shown
from immunax.runtime.untrusted.files import TEXT_BYTES, read_bytes

AGAIN = "copy or download it again"
_DIGITS = 40
"""Of a whole number; ``transformers`` writes 10^30 for a tokenizer without a longest text."""


@dataclass(frozen=True)
class Limits:
    """How much a text may hold.

    Attributes:
      size: bytes of the file.
      depth: lists and mappings within one another.
      values: commas and opening brackets, hence no fewer than there are values.
      text: characters of one string.
      strict: numbers are finite and of at most 40 digits, and text has no half of a surrogate pair; rows of data are read with
        less, since only the cells that are used have to be right.
    """

    size: int = TEXT_BYTES
    depth: int = 64
    values: int = 1_000_000
    text: int = 4 << 20
    strict: bool = True


SETTINGS = Limits()
"""Of configurations, indexes, manifests, certificates."""


class MalformedError(ValueError):
    """Why a text is no plain value.

    Attributes:
      line: where, None where it is the whole text.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def read_json(path: Path, limits: Limits = SETTINGS, fix: str = AGAIN) -> Any:
    """The value in a file.

    Args:
      path: of the file.
      limits: of its value.
      fix: what its reader can do.

    Raises:
      UserError: it is no plain file, is too large, or holds no JSON within the limits.
    """
    return parse_json(read_bytes(path, limits.size), str(path), limits, fix)


def read_object(path: Path, limits: Limits = SETTINGS, fix: str = AGAIN) -> dict[str, Any]:
    """As :func:`read_json`, of a file that holds an object.

    Raises:
      UserError: as there, or it holds something else.
    """
    value = read_json(path, limits, fix)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(value).__name__}; {fix}.")
    return value


def parse_json(raw: bytes | str, where: str, limits: Limits = SETTINGS, fix: str = AGAIN) -> Any:
    """A text's value.

    Args:
      raw: UTF-8 or text.
      where: its file's name, for messages.
      limits: of its value.
      fix: what its reader can do.

    Raises:
      UserError: it is no JSON within the limits.
    """
    try:
        return loads(raw, limits)
    except MalformedError as error:
        at = "it" if error.line is None else f"line {error.line}"
        raise UserError(f"{where}: not readable as JSON: {at} {error}; {fix}.") from error


def loads(raw: bytes | str, limits: Limits = SETTINGS) -> Any:
    """A text's value.

    Args:
      raw: UTF-8 or text.
      limits: of its value.

    Raises:
      MalformedError: it is no JSON within the limits.
    """
    text = _decoded(raw)
    openings = text.count("[") + text.count("{")
    if openings + text.count(",") > limits.values:
        raise MalformedError(f"has more than {limits.values} values, the most that are read")
    strict = {"parse_int": _whole, "parse_float": _finite, "parse_constant": _no_constant} if limits.strict else {}
    try:
        value = json.loads(text, object_pairs_hook=_once, **strict)
    except json.JSONDecodeError as error:
        raise MalformedError(f"is not valid JSON ({error.msg}, at character {error.colno})", error.lineno) from error
    except RecursionError as error:
        raise MalformedError("is nested too deeply") from error
    except MemoryError as error:
        raise MalformedError("takes more memory than there is") from error
    except MalformedError:
        raise
    except ValueError as error:  # a number of too many digits
        raise MalformedError(f"is not valid JSON ({error})") from error
    if limits.strict or openings > limits.depth:
        _check(value, limits)
    return value


def parse_yaml(raw: bytes | str, where: str, limits: Limits = SETTINGS, fix: str = AGAIN) -> Any:
    """A text's value, of the YAML that JSON has words for: no anchors, no tags, no dates.

    Args:
      raw: UTF-8 or text.
      where: its file's name, for messages.
      limits: of its value.
      fix: what its reader can do.

    Raises:
      UserError: it is no such YAML within the limits.
    """
    try:
        text = _decoded(raw)
        value = yaml.load(text, Loader=_PlainLoader)
        _check(value, limits)
        return value
    except MalformedError as error:
        raise UserError(f"{where}: not readable as YAML: it {error}; {fix}.") from error
    except (yaml.YAMLError, RecursionError, MemoryError, ValueError, ArithmeticError, LookupError) as error:
        place = getattr(error, "problem_mark", None)
        at = "" if place is None else f", line {place.line + 1}"
        raise UserError(f"{where}: not readable as YAML ({type(error).__name__}{at}); {fix}.") from error


def _decoded(raw: bytes | str) -> str:
    try:
        return raw if isinstance(raw, str) else raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"is not UTF-8 at byte {error.start}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise MalformedError(f"has the key {shown(twice)} twice in one object; keep one of them")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise MalformedError(f"has a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedError(f"has the number {shown(text)}, which is not finite")
    return number


def _no_constant(name: str) -> Any:
    raise MalformedError(f"has {name}, which is no number of JSON's")


def _check(value: Any, limits: Limits) -> None:
    """Refuses what passes a limit, without calling itself."""
    count, layers = 0, [iter((value,))]
    while layers:
        for each in layers[-1]:
            count += 1
            if count > limits.values:
                raise MalformedError(f"has more than {limits.values} values, the most that are read")
            _check_one(each, limits)
            if isinstance(each, (dict, list)):
                if len(layers) > limits.depth:
                    raise MalformedError("is nested too deeply")
                layers.append(_members(each))
                break
        else:
            layers.pop()


def _members(value: dict | list) -> Iterator[Any]:
    if isinstance(value, list):
        return iter(value)
    return (each for pair in value.items() for each in pair)


def _check_one(value: Any, limits: Limits) -> None:
    if isinstance(value, str):
        if len(value) > limits.text:
            raise MalformedError(f"has a text of more than {limits.text} characters")
        if limits.strict and not _encodes(value):
            raise MalformedError(f"has half of a surrogate pair in {shown(value)}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _PlainLoader(yaml.SafeLoader):
    """Values that JSON has words for; an anchor that is repeated could unfold to any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise MalformedError("repeats an anchor; write the value out")
        return super().compose_node(parent, index)

    def construct_plain(self, node: yaml.MappingNode) -> Any:
        pairs = [
            (self.construct_object(key, deep=True), self.construct_object(each, deep=True)) for key, each in node.value
        ]
        if not all(isinstance(key, str) for key, _ in pairs):
            raise MalformedError("has a key that is no text; put it into quotes")
        return _once(pairs)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        number = self.construct_yaml_float(node)
        return _finite(str(number))

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _DIGITS:
            raise MalformedError(f"has a number of {len(node.value)} digits")
        return self.construct_yaml_int(node)

    def refuse(self, node: yaml.Node) -> Any:
        raise MalformedError(f"has a value of the kind {shown(node.tag)}; write it as text, in quotes")


_PlainLoader.yaml_constructors = {
    "tag:yaml.org,2002:null": yaml.SafeLoader.construct_yaml_null,
    "tag:yaml.org,2002:bool": yaml.SafeLoader.construct_yaml_bool,
    "tag:yaml.org,2002:int": _PlainLoader.construct_whole,
    "tag:yaml.org,2002:float": _PlainLoader.construct_number,
    "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
    "tag:yaml.org,2002:seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "tag:yaml.org,2002:map": _PlainLoader.construct_plain,
    None: _PlainLoader.refuse,
}

"""The code that can change a thing: every module that the modules which make it import, and so on, within this package.

Read from the source, not from what happens to be loaded, so that it is the same in every process. An import inside a
function counts; so does a class that a configuration names.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from immunax.runtime import digest

_PACKAGE = Path(__file__).parents[1]


def code_digest(parts: Iterable[Any]) -> str:
    """SHA-256 of the source of every module that can change what some parts make; arguments as :func:`sources`."""
    return digest.of_json({name: hashlib.sha256(source).hexdigest() for name, source in sources(parts).items()})


def package_digest() -> str:
    """SHA-256 of every module of the package."""
    own = {str(each.relative_to(_PACKAGE)): hashlib.sha256(source).hexdigest() for each, source in as_begun().items()}
    return digest.of_json(own)


@cache
def as_begun() -> Mapping[Path, bytes]:
    """Every module of the package, as it was when this was first asked for, which is at the start of a command.

    It is what runs, where somebody edits a file meanwhile; but for modules that nobody had imported by then.
    """
    return _read(_PACKAGE)


def _read(package: Path) -> Mapping[Path, bytes]:
    return {each: each.read_bytes() for each in sorted(package.rglob("*.py"))}


def sources(parts: Iterable[Any], package: Path = _PACKAGE) -> dict[str, bytes]:
    """The modules of the package that some parts are defined in, and all that these import.

    Args:
      parts: functions and classes; objects, with all that their fields hold; plain configurations, with every ``_target_``.
      package: its folder.

    Returns:
      Source by the module's name.
    """
    known = as_begun() if package == _PACKAGE else _read(package)
    found: dict[str, bytes] = {}
    waiting = [name for part in parts for name in _defined(part)]
    while waiting:
        for module, file in _files(waiting.pop(), package, known):
            if module not in found:
                found[module] = known[file]
                waiting += _imported(found[module], module if file.name == "__init__.py" else module.rpartition(".")[0])
    return found


def _files(name: str, package: Path, known: Mapping[Path, bytes]) -> Iterator[tuple[str, Path]]:
    """The module that a name stands in, below the packages that are imported on the way to it."""
    first, *rest = name.split(".")
    if first != package.name:
        return
    for count in range(len(rest) + 1):
        place = package.joinpath(*rest[:count])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file in known:
                yield ".".join([first, *rest[:count]]), file


@lru_cache(maxsize=1024)
def _imported(source: bytes, parent: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            names += [f"{start}.{each.name}" for each in node.names]
    return tuple(names)


def _defined(part: Any) -> Iterator[str]:
    """The modules of a function, a class or an object, and of what it holds."""
    if hasattr(part, "__qualname__"):  # a function or a class
        yield part.__module__
        return
    yield type(part).__module__
    inner: Iterable[Any] = ()
    if isinstance(part, Mapping):
        yield str(part.get("_target_", ""))
        inner = part.values()
    elif is_dataclass(part):
        inner = (getattr(part, each.name) for each in fields(part))
    elif isinstance(part, Sequence) and not isinstance(part, (str, bytes)):
        inner = part
    for each in inner:
        yield from _defined(each)

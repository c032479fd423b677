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
    return digest.of_json({name: _digest(source) for name, source in sources(parts).items()})


def package_digest() -> str:
    """SHA-256 of every module of the package."""
    return digest.of_json({str(each.relative_to(_PACKAGE)): _digest(source) for each, source in as_begun().items()})


@lru_cache(maxsize=1024)
def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


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
    modules = _own() if package == _PACKAGE else _Modules(package, _read(package))
    waiting = [module for name in {name for part in parts for name in _defined(part)} for module in modules.named(name)]
    found: dict[str, bytes] = {}
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = modules.sources[module]
            waiting += modules.imported(module)
    return found


@cache
def _own() -> "_Modules":
    return _Modules(_PACKAGE, as_begun())


class _Modules:
    """The modules of a package by name. What one imports is read when it is first asked for, and kept: a certificate asks for the
    sources of a thousand things that are made by the same few modules."""

    def __init__(self, package: Path, files: Mapping[Path, bytes]):
        self.sources: dict[str, bytes] = {}
        self._packages: set[str] = set()
        self._imported: dict[str, tuple[str, ...]] = {}
        for file, source in files.items():
            *folders, last = file.relative_to(package).with_suffix("").parts
            name = ".".join([package.name, *folders, *([] if last == "__init__" else [last])])
            self.sources[name] = source
            if last == "__init__":
                self._packages.add(name)

    def named(self, name: str) -> list[str]:
        """The module that a name stands in, and the packages that are imported on the way to it."""
        parts = name.split(".")
        whole = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        return [each for each in whole if each in self.sources]

    def imported(self, module: str) -> tuple[str, ...]:
        """All that a module imports, anywhere in it."""
        if module not in self._imported:
            parent = module if module in self._packages else module.rpartition(".")[0]
            found = (each for name in _imports(self.sources[module], parent) for each in self.named(name))
            self._imported[module] = tuple(dict.fromkeys(found))
        return self._imported[module]


def _imports(source: bytes, parent: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            yield from (f"{start}.{each.name}" for each in node.names)


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

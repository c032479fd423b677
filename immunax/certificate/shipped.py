"""Whether a certificate's suite is the one that ships under its name: a name says nothing of what is behind it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError, shown
from immunax.runtime.launch import composed
from immunax.runtime.moved import current
from immunax.runtime.places import without_places

_RULES = ("suite", "judge", "data", "policy")
"""Groups of a configuration that a suite's name stands for."""

_PRECISION = "compute.dtype"
"""What of the rest changes numbers."""


def told(stated: Mapping[str, Any]) -> str:
    """Whether suite, judges, data and policy are what this version ships, in words for one line.

    Args:
      stated: a statement of the published form.
    """
    said = stated["predicate"]
    name = said["suite"]["name"]
    if name not in {path.stem for path in (configuration_folder() / "suite").glob("*.yaml")}:
        return "a suite of its own: none of that name ships"
    try:
        ships = without_places(composed("certify", [f"suite={name}", f"seed={int(said['seed'])}"]).plain)
    except UserError as error:
        return f"a suite of its own: what ships under its name cannot be read here ({error})"
    found = list(_differences(said["suite"]["config"], ships, _RULES))
    computed = [
        each for each in _differences(said["suite"]["config"], ships, ("compute",)) if each.startswith(_PRECISION)
    ]
    otherwise = f"; in a precision of its own: {computed[0]}" if computed else ""
    if not found:
        return f"as it ships with this version: attacks, judges, data and policy{otherwise}"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"a suite of its own: {found[0]}{more}{otherwise}"


def _differences(config: Mapping[str, Any], ships: Mapping[str, Any], groups: Sequence[str]) -> Iterator[str]:
    for group in groups:
        one, other = (dict(_leaves(_current(each.get(group)), group)) for each in (config, ships))
        for path in sorted(one.keys() | other.keys()):
            mine, theirs = (shown(each[path]) if path in each else "nothing" for each in (one, other))
            if mine != theirs:
                yield f"{shown(path)[1:-1]} is {mine}, and {theirs} in what ships"


def _current(node: Any) -> Any:
    """Under today's names; what is no node is compared as it is."""
    try:
        return current(node)
    except (UserError, TypeError):
        return node


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(children, Mapping) or not children:
        yield path, node
        return
    for name, child in children.items():
        yield from _leaves(child, f"{path}.{name}")

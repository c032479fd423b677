"""What is left of a machine's paths in a statement that others read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def without_places(node: Any) -> Any:
    """A configuration in which a path that begins at the root, or at a home folder, is its last part.

    A text that happens to begin with a slash, such as a prompt, stays: it leads into no folder of this machine.

    Args:
      node: nested dictionaries and lists of JSON's values.
    """
    if isinstance(node, Mapping):
        return {name: without_places(each) for name, each in node.items()}
    if isinstance(node, list):
        return [without_places(each) for each in node]
    if not isinstance(node, str):
        return node
    path = Path(os.path.expanduser(node))
    inside = path.is_absolute() and len(path.parts) > 1 and os.path.exists(os.path.join(*path.parts[:2]))
    return path.name if inside else node

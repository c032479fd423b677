"""Docstrings name objects as Sphinx does, ``:func:`~package.module.name```; the site makes links of that.

A name without a page of its own, such as a private one, stays text.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites roles in every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites those of one object.

        Args:
          obj: whose docstring it is.
          kwargs: what else griffe tells.
        """
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value, obj)


def linked(text: str, obj: griffe.Object) -> str:
    """A docstring with links in the place of roles.

    Args:
      text: the docstring.
      obj: whose it is; names are looked for from here outwards.
    """
    return _ROLE.sub(lambda role: _link(role, obj), text)


def _link(role: re.Match, obj: griffe.Object) -> str:
    name = role[2].rpartition(".")[2] if role[1] else role[2]
    return f'<autoref optional identifier="{_whole(role[2], obj)}"><code>{name}</code></autoref>'


def _whole(name: str, obj: griffe.Object) -> str:
    if name.startswith("immunax."):
        return name
    scope: griffe.Object | None = obj
    while scope is not None:
        if name.partition(".")[0] in scope.members:
            return f"{scope.path}.{name}"
        scope = scope.parent
    return name

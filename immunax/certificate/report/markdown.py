"""Text of strangers within Markdown as the Hub renders it (GitHub's, https://github.github.com/gfm/): it is text, in one line."""

import re

from immunax.runtime.escaped import escaped

_MEANING = re.compile(r"[\\`*_{}\[\]<>|~&#!@$^=+]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
"""What can begin or end a mark, a link, an entity, an element, a cell, a formula, a picture or somebody's name."""
_OPENING = re.compile(r"^(\d*)([-.)])(?=[\s-]|$)")
"""What makes a list, a rule or a heading where a line begins with it."""


def markdown(text: str) -> str:
    """A text as Markdown that shows it as it is.

    Args:
      text: anything.
    """
    return _OPENING.sub(r"\1\\\2", _MEANING.sub(r"\\\g<0>", escaped(text).strip()))

"""A stranger's chat template, rendered under limits of time, memory and output."""

from collections.abc import Mapping
from typing import Any

from immunax.runtime.untrusted.confined import Confined, FaultError, Limits

LONGEST = 1 << 20
"""Characters of a template; the longest that are published have 20,000."""

_RENDERER = Confined("immunax.runtime.untrusted.template_program", Limits(memory=512 << 20, seconds=2.0, part=16 << 20))


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes.

    Args:
      template: in jinja's language, as ``transformers`` takes it.
      variables: plain values by name.

    Raises:
      FaultError: it raises, loops, needs too much memory or makes too much text; says which.
    """
    if not isinstance(template, str) or len(template) > LONGEST:
        raise FaultError(f"it is no text of at most {LONGEST} characters")
    parts = _RENDERER.ask({"template": template, "variables": dict(variables)})
    return b"".join(parts).decode("utf-8", "surrogatepass")

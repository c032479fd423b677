"""What both pages have in common: a template filled with text, which a browser obeys in nothing.

Every value is one line of what can be seen, escaped as HTML where it is put in, in text and in attributes. The page itself says
that a browser is to run and fetch nothing (Content Security Policy, level 3): of its one style sheet it names the digest, so that
a name that found its way out of the text could neither run, nor restyle what stands beside it, nor call home.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from immunax.conditions.percent import percent
from immunax.runtime.escaped import escaped

NAME = 120
"""Characters of a name."""
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_TONES = ("holds", "fails", "inconclusive")
"""Outcomes that the style sheets have colours for."""


def rendered(package: str, template: str, values: dict[str, Any]) -> str:
    """A page.

    Args:
      package, template: where the template is; it has one style sheet, and no expression in it.
      values: what it speaks of.

    Returns:
      HTML.

    Raises:
      ValueError: a value is not of the form that the template is for.
    """
    found, policy = _template(package, template)
    try:
        return found.render(**values, content_security_policy=policy)
    except jinja2.TemplateError as error:
        raise ValueError(f"a page has no place for it: {error}") from error


@cache
def _template(package: str, name: str) -> tuple[jinja2.Template, str]:
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    [style] = _STYLE.findall(text)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return _environment().from_string(text), policy


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_in_one_line
    )
    environment.filters |= {
        "percent": lambda value: "–" if value is None else f"{value:.0%}",
        "exactly": percent,
        "number": lambda value: "–" if value is None else f"{value:.3g}",
        "name": lambda text: escaped(text, NAME),
        # Not jinja's own, which makes small letters of all the others.
        "sentence": lambda text: text[:1].upper() + text[1:],
        "tone": lambda outcome: outcome if outcome in _TONES else "other",
    }
    return environment


def _in_one_line(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else escaped(value)

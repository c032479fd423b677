"""Renders chat templates; imported in a child process alone (:mod:`.confined`).

The environment is the one that ``transformers`` gives templates: jinja's sandbox without ways to change what is passed in, blocks
trimmed, loop controls, and the same few functions. Only jinja is imported, so that a child starts in a moment.
"""

import functools
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """``{% generation %}`` marks what a loss is to look at, and changes nothing of the text."""

    tags = {"generation"}  # noqa: RUF012 -- jinja's own interface

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        return caller()


class _Dict:
    """Makes mappings without giving the class away."""

    def __call__(self, *parts: Any, **named: Any) -> dict:
        return dict(*parts, **named)

    def fromkeys(self, *parts: Any) -> dict:
        return dict.fromkeys(*parts)


class _Namespace(jinja2.utils.Namespace):
    """Takes no names that reach into Python."""

    def __init__(*parts: Any, **named: Any) -> None:
        own, *rest = parts
        given = dict(*rest, **named)
        for name in given:
            _check_name(name)
        jinja2.utils.Namespace.__init__(own, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name such as {name!r}")


def _raise(message: Any) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(text)


def answer(request: dict[str, Any]) -> Iterator[bytes]:
    """The text of ``template`` under ``variables``."""
    yield _compiled(request["template"]).render(**request["variables"]).encode("utf-8", "surrogatepass")

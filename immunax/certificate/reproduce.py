"""How a certificate is made again, from what it says: a stranger's own lines would be commands that a reader pastes."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from immunax.certificate.statement import FILE
from immunax.data.dialog import SHARED

UNNAMED, AUTO = "organism", "auto"
"""The model of a configuration without a path; the dtype that a command has anyway."""


def reproduce(config: Mapping[str, Any]) -> list[str]:
    """Two command lines, every word of them quoted for a shell.

    Args:
      config: the configuration that a statement carries.
    """
    model, suite, attacker, dtype = (
        _within(config, *at)
        for at in (("model", "path"), ("suite", "name"), ("data", "attacker"), ("compute", "dtype"))
    )
    words = [
        f"model={model or UNNAMED}",
        *_spoken(config),
        f"suite={suite}",
        f"seed={config.get('seed')}",
        *([f"data.attacker={SHARED}"] if attacker == SHARED else []),
        *([f"compute.dtype={dtype}"] if dtype not in (None, AUTO) else []),
    ]
    return [
        f"python -m immunax.certify {shlex.join(words)}",
        f"python -m immunax.verify {FILE} --model FOLDER --replay 3",
    ]


def _spoken(config: Mapping[str, Any]) -> Iterator[str]:
    """How the model is spoken to, where the certifier chose that."""
    template, arguments = (_within(config, "model", name) for name in ("chat_template", "template_args"))
    if template:
        yield f"model.chat_template={template}"
    for name, value in (arguments if isinstance(arguments, Mapping) else {}).items():
        yield f"model.template_args.{name}={json.dumps(value)}"


def _within(config: Mapping[str, Any], group: str, name: str) -> Any:
    node = config.get(group)
    return node.get(name) if isinstance(node, Mapping) else None

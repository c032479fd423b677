"""How a certificate is made again, from what it says: a stranger's own lines would be commands that a reader pastes."""

import shlex
from collections.abc import Mapping
from typing import Any

from immunax.certificate.statement import FILE
from immunax.data.dialog import SHARED

UNNAMED = "organism"
"""The model of a configuration without a path."""


def reproduce(config: Mapping[str, Any]) -> list[str]:
    """Two command lines, every word of them quoted for a shell.

    Args:
      config: the configuration that a statement carries.
    """
    model, suite, attacker = (
        _within(config, *at) for at in (("model", "path"), ("suite", "name"), ("data", "attacker"))
    )
    words = [
        f"model={model or UNNAMED}",
        f"suite={suite}",
        f"seed={config.get('seed')}",
        *([f"data.attacker={SHARED}"] if attacker == SHARED else []),
    ]
    return [
        f"python -m immunax.certify {shlex.join(words)}",
        f"python -m immunax.verify {FILE} --model FOLDER --replay 3",
    ]


def _within(config: Mapping[str, Any], group: str, name: str) -> Any:
    node = config.get(group)
    return node.get(name) if isinstance(node, Mapping) else None

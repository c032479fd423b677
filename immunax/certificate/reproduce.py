"""How a reader makes a certificate again: commands that follow from what it says, since a reader copies them into a shell."""

import shlex
from collections.abc import Mapping
from typing import Any

from immunax.data.dialog import SHARED

_CERTIFY, _VERIFY = "python -m immunax.certify", "python -m immunax.verify certificate.json --model FOLDER --replay 3"


def reproduce(said: Mapping[str, Any]) -> list[str]:
    """The commands of a predicate, each argument quoted for a shell.

    Args:
      said: with ``suite``, its configuration in it, and ``seed``.
    """
    config = said["suite"]["config"]
    path = (config.get("model") or {}).get("path") or "organism"
    given = [f"model={path}", f"suite={said['suite']['name']}", f"seed={said['seed']}"]
    if (config.get("data") or {}).get("attacker") == SHARED:
        given.append(f"data.attacker={SHARED}")
    return [shlex.join([*_CERTIFY.split(), *given]), _VERIFY]

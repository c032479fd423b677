"""Names that a certificate uses for what was measured: those of its configuration, of letters that look like no others."""

import re
from collections.abc import Mapping
from typing import Any

from immunax.certificate.reproduce import reproduce

_PLAIN = re.compile(r"[!-~](?:[ -~]{0,78}[!-~])?")
"""Printable ASCII, at most 80 characters; a name that ends in a space would look like one that does not."""


def fault(said: Mapping[str, Any]) -> str | None:
    """The first name that is another one than it looks; None where there is none.

    Args:
      said: the predicate.
    """
    config = said["suite"]["config"]
    for kind, names in _named(said).items():
        for name in names:
            if _PLAIN.fullmatch(name) is None:
                return f"the name of {kind}, {ascii(name)[:100]}, is not of at most 80 plain letters, digits and signs"
    if config["suite"].get("name") != said["suite"]["name"]:
        return "the name of the suite is not that of its configuration"
    if said["reproduce"] != reproduce(config):
        return "the commands that make it again are not those of its configuration"
    return None


def _named(said: Mapping[str, Any]) -> dict[str, list[str]]:
    judges = said["judges"]
    return {
        "the suite": [said["suite"]["name"]],
        "an attack": [each["family"] for each in said["attacks"]],
        "a judge": [name for each in judges for name in (each["called"], each["name"])],
        "a side of harm": list(said["policy"]["harm"]),
    }

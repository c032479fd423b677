"""What to do about what gcloud says, by its words; ``RUNBOOK.md`` has the sources."""

import re
from typing import TYPE_CHECKING, NamedTuple

from immunax.runtime.escaped import escaped
from tpu import prices
from tpu.mistakes import OutsideError

if TYPE_CHECKING:
    from tpu.queued import Request

_LIST = "gcloud alpha compute tpus queued-resources list --zone={zone}"
_QUOTED = 240
"""Characters of what gcloud says, where there is an advice."""
_ZONES = "{chip} is had in zones of {regions}."


class _Hint(NamedTuple):
    pattern: str
    advice: str
    hopeless: bool = True


# In this order: what is told first hides what it also matches.
_HINTS = (
    # gcloud takes a network that is gone for credentials that are none, whenever its token of an hour has to be renewed.
    _Hint(
        "Max retries exceeded|NameResolution|Failed to resolve|Unable to find the server|TransportError|Read timed out"
        "|network connectivity",
        "the network does not reach Google.",
        False,
    ),
    _Hint(
        "ALREADY_EXISTS|already exists", "it is taken up where it is for the same job; else choose another name.", False
    ),
    _Hint("[Qq]uota", f"ask for more, or delete what holds it, requests that failed or were suspended too: {_LIST}"),
    _Hint(
        "reserved capacity",
        "without a reservation: the zone has none left of this kind; try another, or --spot.",
        False,
    ),
    _Hint("SERVICE_DISABLED|has not been used in project", "gcloud services enable tpu.googleapis.com"),
    _Hint("[Rr]eauth|invalid_grant|an active account|(valid|invalid authentication) credentials", "gcloud auth login"),
    _Hint("auth login|credentials", "gcloud auth login, in another terminal, where the network is there.", False),
    _Hint(r"Error parsing \[queued_resource\]", "give --project, or: gcloud config set project PROJECT"),
    _Hint("[Uu]nknown zone|Permission denied on 'locations/|[Ii]nvalid.*zone|[Ll]ocation .*not", _ZONES),
    _Hint(
        "not present in the SSH agent",
        "gcloud reaches several machines through an ssh agent: ssh-add ~/.ssh/google_compute_engine",
    ),
    _Hint("publickey", "the key is not known there yet: wait.", False),
    _Hint(
        "HOST IDENTIFICATION HAS CHANGED",
        "remove it by the ssh-keygen -R line that ssh prints; the machine is a new one.",
    ),
    _Hint(r"PERMISSION_DENIED|[Pp]ermission|\b403\b", "the account needs the role roles/tpu.admin in this project."),
    _Hint("INVALID_ARGUMENT|unrecognized arguments", "gcloud components update"),
    _Hint("[Cc]apacity|stockout|STOCKOUT", "there are no such chips free now; wait, or try another zone.", False),
)


def outside(what: str, said: str, request: "Request") -> OutsideError:
    """What failed, what was said, and what to do about it.

    Args:
      what: failed, as ``pod1 was not created``.
      said: by gcloud.
      request: that it is about.
    """
    hint = _hint(said)
    if hint is None:
        return OutsideError(f"{what}: {said}")
    chip = request.shape.generation.name
    advice = hint.advice.format(zone=request.zone, chip=chip, regions=", ".join(prices.table()[chip]))
    return OutsideError(f"{what}: {escaped(said, _QUOTED).rstrip('.')}. {advice}", hint.hopeless)


def _hint(said: str) -> _Hint | None:
    return next((hint for hint in _HINTS if re.search(hint.pattern, said)), None)

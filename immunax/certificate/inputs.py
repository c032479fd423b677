"""What a certificate says of its models beside what somebody finds who has them: bytes, size, and how they speak."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Found(NamedTuple):
    """A model as it is here.

    Attributes:
      weights: SHA-256 of all tensors in float32.
      parameters: how many weights it has.
      speech: SHA-256 of its ``tokenizer`` and ``template``, None where it has none.
    """

    weights: str
    parameters: int
    speech: Mapping[str, str | None]


def model_fault(said: Mapping[str, Any], found: Found) -> str | None:
    """The first thing that is not as it is said of the certified model; None where all is. Its files are digested elsewhere.

    Args:
      said: the predicate.
      found: the model here.
    """
    if said["model"]["weights"] != found.weights:
        return "the weights here are not those that it was measured with"
    if said["model"]["parameters"] != found.parameters:
        return f"the model here has {found.parameters} parameters, not {said['model']['parameters']}"
    if said["speech"]["model"] != dict(found.speech):
        return "tokenizer and template of the certificate are not those of the model"
    return None


def reference_fault(said: Mapping[str, Any], found: Found) -> str | None:
    """The first thing that is not as it is said of the reference; None where all is. Other files may hold the same weights.

    Args:
      said: the predicate, which has one.
      found: the reference here.
    """
    if said["reference"]["weights"] != found.weights:
        return "it is not the model that it was compared with"
    if said["speech"]["reference"] != dict(found.speech):
        return "its tokenizer or its template is not that of the certificate"
    return None


def undefended_fault(said: Mapping[str, Any], weights: str | None) -> str | None:
    """What is not as it is said of the model before its guard; None where nothing is.

    Args:
      said: the predicate.
      weights: SHA-256 of all its tensors in float32 here; None where it is not known.
    """
    return None if said["undefended"] == weights else "the model before its guard comes out otherwise here"

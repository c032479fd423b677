"""Which program each kind of case is."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerated.catalogue import Case
    from accelerated.work import Work

_WORKS = {
    "training": ("training", "dense_work"),
    "packed": ("training", "packed_work"),
    "scan": ("training", "scan_work"),
    "attention": ("attention", "attention_work"),
    "decoding": ("decoding", "decoding_work"),
    "population": ("populations", "stretch_work"),
    "defense": ("defenses", "defense_work"),
}


def work_of(case: "Case", side: str, sizes: Mapping[str, Any], platform: str) -> "Work":
    """The program of one side of a case; nothing is imported that it does not need.

    Args:
      case: of the catalogue.
      side: one of immunax's.
      sizes: of :meth:`~accelerated.catalogue.Case.sized`.
      platform: that it is for, as ``jax.default_backend()`` names it.
    """
    module, name = _WORKS[case.kind]
    make = getattr(import_module(f"accelerated.{module}"), name)
    return make(sizes, platform, side) if case.kind == "attention" else make(sizes, platform)

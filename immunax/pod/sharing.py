"""A slice for one run after another, or shared out to runs that each take a part of it: which ends a sweep sooner?

Both cost the same an hour, so that what ends sooner is cheaper too.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from immunax.runtime.mesh import MeshSpec
from immunax.runtime.parts import Part

_GROWING = "attack", "data", "fsdp"


class Sharing(NamedTuple):
    """As many runs as a slice has parts.

    Attributes:
      parts: how many.
      at_once: seconds for all of them, each on a part.
      in_turn: seconds for all of them, one after another on the whole slice; None where a run does not fit that way.
    """

    parts: int
    at_once: float
    in_turn: float | None

    def told(self) -> str:
        """Which ends sooner, for a line."""
        apart = f"{self.parts} runs, each on its part: {self.at_once:.4g} s at the compiler's bound"
        if self.in_turn is None:
            return f"{apart}; one after another on the whole slice they do not fit"
        sooner, ratio = ("parts", self.in_turn / self.at_once) if self.at_once <= self.in_turn else ("whole slice", 0.0)
        ratio = ratio or self.at_once / self.in_turn
        return (
            f"{apart}; one after another on the whole slice: {self.in_turn:.4g} s. The {sooner} end{'s'[: sooner != 'parts']} a "
            f"sweep {ratio:.2f} times as soon, for as much less money"
        )


def whole(spec: MeshSpec, part: Part, shipped: Sequence[MeshSpec] = ()) -> tuple[MeshSpec, ...]:
    """The meshes on which all parts together would do one run: the fastest of them is what parts are to be held against.

    One grows along the axis that the part spreads, for many rows or members. Rows are padded to ``data x fsdp``: for few of them
    the other is ours for that slice, or where there is none grows along ``tensor``.

    Args:
      spec: of one part, with a topology.
      part: how many there are.
      shipped: meshes of ours.

    Returns:
      One or two, of one topology.
    """
    topology = _topology(str(spec.topology), part.count)
    grows = next((axis for axis in _GROWING if getattr(spec, axis) > 1), "fsdp")
    rest = any(getattr(spec, axis) == -1 for axis in _GROWING)
    wide = spec if rest else _times(spec, grows, part.count)
    ours = next((each for each in shipped if each.topology == topology), None)
    narrow = ours or (spec if spec.tensor == -1 else _times(spec, "tensor", part.count))
    return tuple(dict.fromkeys(replace(each, topology=topology, part=None) for each in (wide, narrow)))


def _times(spec: MeshSpec, axis: str, count: int) -> MeshSpec:
    return replace(spec, **{axis: count * getattr(spec, axis)})


def _topology(part: str, count: int) -> str:
    name, _, shape = part.partition(":")
    sizes = [int(each) for each in shape.split("x")]
    ways = itertools.product(*(range(1, count + 1) for _ in sizes))
    grown = ([size * way for size, way in zip(sizes, each, strict=True)] for each in ways if math.prod(each) == count)
    # The most compact slice of so many chips, its longest edge last as Cloud TPU writes it.
    chips = min(map(sorted, grown), key=lambda found: (sum(found), found))
    return f"{name}:{'x'.join(map(str, chips))}"

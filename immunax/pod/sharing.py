"""A slice for one run after another, or shared out to runs that each take a part of it: which ends a sweep sooner?

Both cost the same an hour, so that what ends sooner is cheaper too.
"""

import itertools
import math
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


def whole(spec: MeshSpec, part: Part) -> MeshSpec:
    """The mesh that all parts together would make for one run.

    Args:
      spec: of one part, with a topology.
      part: how many there are.
    """
    name, _, shape = str(spec.topology).partition(":")
    sizes = [int(each) for each in shape.split("x")]
    ways = itertools.product(*(range(1, part.count + 1) for _ in sizes))
    grown = (
        [size * way for size, way in zip(sizes, each, strict=True)] for each in ways if math.prod(each) == part.count
    )
    # The most compact slice of so many chips, its longest edge last as Cloud TPU writes it.
    chips = min(map(sorted, grown), key=lambda found: (sum(found), found))
    topology = f"{name}:{'x'.join(map(str, chips))}"
    sized = {axis: getattr(spec, axis) for axis in _GROWING}
    grows = next((axis for axis, size in sized.items() if size > 1), "fsdp")
    size = part.count * sized[grows] if -1 not in sized.values() else sized[grows]
    return replace(spec, topology=topology, part=None, **{grows: size})

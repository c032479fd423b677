"""Slices of TPUs: their names at each service, their chips and hosts."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from immunax.runtime.errors import UserError, nearest

ROOT = Path(__file__).resolve().parent.parent
_CHIPS_A_HOST = 4
"""But for the machine of eight chips that is a slice by itself."""


@dataclass(frozen=True)
class Generation:
    """One version of the chip, by the names that Google's services have for it.

    Attributes:
      name: as a mesh's topology has it.
      prefix: of accelerator types.
      cores: that a type's number counts for each chip.
      runtime: of a TPU machine, by version.
      gke: the value of the node label ``cloud.google.com/gke-tpu-accelerator``.
      autocheckpoint: whether the service tells a process of maintenance before it begins.
      flex: whether it is had by flex-start.
      topologies: shapes, smallest first.
    """

    name: str
    prefix: str
    cores: int
    runtime: str
    gke: str
    autocheckpoint: bool
    flex: bool
    topologies: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
# cloud.google.com/tpu/docs/v5e, v5p, v6e, runtimes, autocheckpoint, request-using-flex-start
GENERATIONS = {
    each.name: each
    for each in (
        Generation("v5e", "v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", True, True, _FLAT),
        Generation("v5p", "v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", False, False, _CUBES),
        Generation("v6e", "v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", False, True, _FLAT),
    )
}


@dataclass(frozen=True)
class Shape:
    """One slice.

    Attributes:
      generation: of its chips.
      topology: as ``16x16``.
    """

    generation: Generation
    topology: str

    @property
    def chips(self) -> int:
        """How many."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def type(self) -> str:
        """What queued resources and xpk call it, such as ``v5litepod-16``."""
        return f"{self.generation.prefix}-{self.chips * self.generation.cores}"

    @property
    def machines(self) -> int:
        """TPU machines of a queued resource."""
        return 1 if self.chips == 2 * _CHIPS_A_HOST and self.generation.cores == 1 else self.pods

    @property
    def pods(self) -> int:
        """Pods of a job on GKE, whose nodes have four chips."""
        return max(1, self.chips // _CHIPS_A_HOST)

    @property
    def chips_a_pod(self) -> int:
        """What each pod asks for."""
        return self.chips // self.pods

    @property
    def mesh(self) -> str:
        """What ``mesh.topology`` calls it, such as ``v5e:4x4``."""
        return f"{self.generation.name}:{self.topology}"


def of_topology(text: str) -> Shape:
    """The slice that ``mesh.topology`` names.

    Args:
      text: such as ``v5e:4x4``.

    Raises:
      UserError: there is no such slice.
    """
    name, _, topology = text.partition(":")
    generation = GENERATIONS.get(name)
    if generation is None:
        raise UserError(f"mesh.topology={text}: expected one of {', '.join(GENERATIONS)} and a shape, as v5e:4x4.")
    if topology not in generation.topologies:
        raise UserError(f"mesh.topology={text}: {name} has the shapes {', '.join(generation.topologies)}.")
    return Shape(generation, topology)


def of_type(text: str) -> Shape:
    """The slice that an accelerator type names, in its usual shape.

    Args:
      text: such as ``v5litepod-16``.

    Raises:
      UserError: there is no such type.
    """
    shapes = [shape for each in GENERATIONS.values() for shape in _shapes(each)]
    found = next((shape for shape in shapes if shape.type == text), None)
    if found is None:
        prefix = text.rpartition("-")[0]
        near = [shape.type for shape in shapes if shape.generation.prefix == prefix] or [shape.type for shape in shapes]
        raise UserError(f"--type {text}: expected one of {', '.join(near)}.")
    return found


def of_parts(part: Shape, count: int) -> Shape:
    """The slice that so many parts make.

    Args:
      part: shape of each.
      count: how many.

    Raises:
      UserError: there is no slice of so many chips.
    """
    known = _shapes(part.generation)
    found = next((each for each in known if each.chips == count * part.chips), None)
    if found is None:
        sizes = ", ".join(str(each.chips // part.chips) for each in known if each.chips % part.chips == 0)
        raise UserError(f"mesh.part: no {part.generation.name} slice has {count} parts of {part.mesh}; it has {sizes}.")
    return found


def part_of(whole: Shape, count: int) -> Shape:
    """One of so many equal parts of a slice; the slice itself where it is one.

    Args:
      whole: the slice.
      count: of its parts.

    Raises:
      UserError: it has not so many.
    """
    if count == 1:
        return whole
    found = next((each for each in _shapes(whole.generation) if each.chips * count == whole.chips), None)
    if found is None:
        raise UserError(f"mesh.part: {whole.type} does not make {count} equal parts; choose another number.")
    return found


def _shapes(generation: Generation) -> list[Shape]:
    return [Shape(generation, topology) for topology in generation.topologies]


def of_mesh(name: str) -> Shape | None:
    """The slice that a choice of ``mesh`` is for; None where it is for any.

    Args:
      name: of a file in ``conf/mesh``.

    Raises:
      UserError: there is no such file.
    """
    folder = ROOT / "conf" / "mesh"
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UserError(f"mesh={name}: expected one of {', '.join(known)}.{nearest(name, known)}")
    found = re.search(r"^topology:\s*['\"]?([\w:]+)", known[name].read_text(), re.MULTILINE)
    return None if found is None or found[1] == "null" else of_topology(found[1])

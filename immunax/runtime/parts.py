"""A slice that several runs share: its processes in equal parts, each of which is a job of its own."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immunax.runtime.errors import UserError

EACH = "each"
_CHIPS = 2, 2, 1
"""Chips of one host of a slice of several, along each axis (Cloud TPU's pages on v4, v5e, v5p and v6e)."""


@dataclass(frozen=True)
class Part:
    """What a process takes part in.

    Attributes:
      index: of the part, from 0; None where every process takes that which it is in.
      count: of the parts.
    """

    index: int | None
    count: int

    @classmethod
    def read(cls, text: object) -> "Part":
        """What a user wrote.

        Args:
          text: ``I/N``, the part I of N; or ``each/N``.

        Raises:
          UserError: it is neither.
        """
        found = re.fullmatch(rf"(\d+|{EACH})/([1-9]\d*)", str(text))
        if found is None or (found[1] != EACH and int(found[1]) >= int(found[2])):
            raise UserError(
                f"mesh.part={text}: expected I/N, as 0/4 to 3/4, or {EACH}/N for a sweep that N parts share out."
            )
        return cls(None if found[1] == EACH else int(found[1]), int(found[2]))


def grid_of(topology: str | None, processes: int) -> tuple[int, ...]:
    """How many hosts there are along each axis of a slice.

    Args:
      topology: of its chips, such as ``16x16``; None where processes lie nowhere in particular.
      processes: one a host.

    Returns:
      Sizes, the first axis being the one along which neighbouring processes lie.
    """
    if topology is None or not re.fullmatch(r"\d+(x\d+){1,2}", topology):
        return (processes,)
    chips = (*map(int, topology.split("x")), 1)[:3]
    hosts = tuple(max(1, size // each) for size, each in zip(chips, _CHIPS, strict=True))
    return hosts if math.prod(hosts) == processes else (processes,)


def block_of(grid: Sequence[int], count: int) -> tuple[int, ...]:
    """How many processes one part has along each axis: of all blocks the one with the shortest edges.

    Args:
      grid: from :func:`grid_of`.
      count: of the parts.

    Raises:
      UserError: so many equal blocks there are not.
    """
    ways = itertools.product(*([each for each in range(1, size + 1) if size % each == 0] for size in grid))
    found = [
        tuple(size // each for size, each in zip(grid, way, strict=True)) for way in ways if math.prod(way) == count
    ]
    if not found:
        raise UserError(
            f"mesh.part: the {' x '.join(map(str, grid))} processes of this job do not make {count} equal parts; choose another "
            "number."
        )
    return min(found, key=lambda block: (sum(block), block))


def members(grid: Sequence[int], count: int) -> list[list[int]]:
    """The processes of each part, in their order.

    Args:
      grid, count: as for :func:`block_of`.

    Raises:
      UserError: as there.
    """
    block = block_of(grid, count)
    parts: dict[tuple[int, ...], list[int]] = {}
    for process in range(math.prod(grid)):
        place, rest = [], process
        for size in grid:
            rest, at = divmod(rest, size)
            place.append(at)
        # By the last axis first, as the processes themselves are counted.
        part = tuple(at // size for at, size in zip(place, block, strict=True))[::-1]
        parts.setdefault(part, []).append(process)
    return [parts[each] for each in sorted(parts)]


def environment(grid: Sequence[int], count: int, hosts: Sequence[str], index: int) -> Mapping[str, str]:
    """Variables by which libtpu takes the hosts of a part for a whole slice, in place of asking a metadata server.

    Args:
      grid, count: as for :func:`block_of`.
      hosts: addresses of the part's, in their order.
      index: of this process in it.
    """

    def bounds(sizes: Sequence[int]) -> str:
        return ",".join(map(str, (*sizes, 1, 1)[:3]))

    block = block_of(grid, count)
    return {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_HOST_BOUNDS": bounds(block),
        "TPU_CHIPS_PER_HOST_BOUNDS": bounds(_CHIPS),
        "TPU_TOPOLOGY": "x".join(str(size * each) for size, each in zip((*block, 1, 1), _CHIPS, strict=False)),
        "TPU_WORKER_HOSTNAMES": ",".join(hosts),
        "TPU_WORKER_ID": str(index),
    }

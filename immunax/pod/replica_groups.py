"""Which devices a collective of a compiled program joins, in each of the ways that XLA writes it."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

_GROUPS = re.compile(
    r"replica_groups=(\{[\d,{} ]*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
    r"|mesh\[[^\]]*\](?:, ?device_ids=\([^()]*(?:\([\d,]*\))?\))? ?\{[^}]*\})(?=,|$)"
)
_PAIRS = re.compile(r"source_target_pairs=\{([\d,{} ]*)\}")


def group(attributes: str, mesh_shape: Mapping[str, int]) -> tuple[int, str]:
    """How many devices a collective joins, and along which mesh axes (joined by ``+``).

    Args:
      attributes: of the instruction, with ``replica_groups`` or ``source_target_pairs``.
      mesh_shape: sizes by axis, in the mesh's order; device i of the program is the i-th of the mesh.

    Raises:
      ValueError: the groups are written in an unknown way.
    """
    sizes = tuple(mesh_shape.values())
    groups = [each for each in _groups(attributes, int(np.prod(sizes))) if len(each) > 1]
    if not groups:
        return 1, ""
    places = [np.stack(np.unravel_index(list(each), sizes)) for each in groups]
    varies = np.any([(place != place[:, :1]).any(axis=1) for place in places], axis=0)
    return len(groups[0]), "+".join(axis for axis, moves in zip(mesh_shape, varies, strict=True) if moves)


def _groups(attributes: str, devices: int) -> Sequence[Sequence[int]]:
    pairs = _PAIRS.search(attributes)
    if pairs:
        numbers = _numbers(pairs[1])
        moves = list(zip(numbers[::2], numbers[1::2], strict=True))
        return [move for move in moves if move[0] != move[1]]
    found = _GROUPS.search(attributes)
    if found is None and "replica_groups=" in attributes:
        raise ValueError(f"replica groups in an unknown form: {attributes[:200]}")
    if found is None or found[1] in ("{}", "{{}}"):
        return [range(devices)]
    if found[1].startswith("{"):
        return [_numbers(part) for part in re.findall(r"\{([\d,]+)\}", found[1])]
    if found[1].startswith("["):
        shape, source, *order = (_numbers(part) for part in re.findall(r"[\d,]+", found[1]))
        return _iota(source, order[0] if order else []).reshape(shape).tolist()
    return _named_groups(found[1], devices)


def _named_groups(text: str, devices: int) -> Sequence[Sequence[int]]:
    """Groups along axes that XLA has named itself.

    ``mesh['a'=64,'b'=4] {'a'}``; ``'a':(2)8`` for the 8 ways behind the first 2 of an axis;
    ``mesh['a'=2,'b'=8], device_ids=([8,2]T(1,0)) {'a'}`` where the devices lie in another order.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", text)}
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", text.rpartition("{")[2])
    shape, joined = [], []
    for name, size in sizes.items():
        cuts = {1, size}
        spans = [
            (int(before), int(before) * int(ways)) if ways else (1, size)
            for axis, before, ways in chosen
            if axis == name
        ]
        for span in spans:
            cuts |= set(span)
        ordered = sorted(cuts)
        for low, high in pairwise(ordered):
            if any(begin <= low and high <= end for begin, end in spans):
                joined.append(len(shape))
            shape.append(high // low)
    members = int(np.prod([shape[place] for place in joined]))
    order = re.search(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)", text)
    numbers = _iota(_numbers(order[1]), _numbers(order[2] or "")) if order else np.arange(devices)
    return np.moveaxis(numbers.reshape(shape), joined, range(-len(joined), 0)).reshape(-1, members).tolist()


def _iota(shape: Sequence[int], order: Sequence[int]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).transpose(order or range(len(shape)))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]

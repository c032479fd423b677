"""What a compiled program sends to other slices, as XLA writes it: a ``send`` to the host, whose network carries it on."""

import re
from collections.abc import Mapping

import numpy as np

_RUNTIME = '_xla_host_transfer_handler_name="xla_megascale_runtime"'
_TYPE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SLICES = re.compile(r'_xla_megascale_target="((?:\{[\d,]+\},?)+)x')
_DEVICES = re.compile(r"_xla_megascale_target=\{((?:\{[\d,]+\},?)+)\}")
_PAIRS = re.compile(r"_xla_megascale_target=\{((?:\{\d+->\d+\},?)+)\}")
_IDS_OF_A_SLICE = 100_000
"""Devices of slice s, from 0, have the ids from (s + 1) times this."""

_KINDS = {
    "ALL_GATHER": "all-gather",
    "ALL_REDUCE": "all-reduce",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
}


def is_between_slices(attributes: str) -> bool:
    """Whether a ``send`` goes to another slice."""
    return _RUNTIME in attributes


def between_slices(attributes: str, slices: Mapping[str, int]) -> tuple[str, int, str]:
    """The collective that a ``send`` is a part of, how many slices it joins, and along which mesh axes (joined by ``+``).

    Args:
      attributes: of the instruction.
      slices: how many each axis spans, in the mesh's order; slice i of the job is the i-th of them.

    Raises:
      ValueError: it is written in an unknown way.
    """
    kind, groups = _TYPE.search(attributes), _groups(attributes)
    if not groups or (kind is None and not _PAIRS.search(attributes)):
        raise ValueError(f"a transfer between slices in an unknown form: {attributes[:300]}")
    places = [np.stack(np.unravel_index(list(each), tuple(slices.values()))) for each in groups]
    varies = np.any([(place != place[:, :1]).any(axis=1) for place in places], axis=0)
    axes = "+".join(axis for axis, moves in zip(slices, varies, strict=True) if moves)
    return _KINDS.get(kind[1] if kind else "", "collective-permute"), len(groups[0]), axes


def _groups(attributes: str) -> list[list[int]]:
    """Numbers of the slices of each group, from 0."""
    for pattern, unit in ((_SLICES, 1), (_DEVICES, _IDS_OF_A_SLICE), (_PAIRS, _IDS_OF_A_SLICE)):
        found = pattern.search(attributes)
        if found:
            parts = re.findall(r"\{([^{}]+)\}", found[1])
            return [[int(number) // unit - 1 for number in re.findall(r"\d+", part)] for part in parts]
    return []

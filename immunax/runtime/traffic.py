"""What a compiled program moves and multiplies on each device, counted from its text.

XLA's own ``cost_analysis`` counts the body of a loop once, and layers and attack steps are loops here. This walk takes
each instruction as often as it runs. Of a conditional the branch that moves most is counted.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from immunax.runtime.hlo import Array, Computation, Instruction, Program

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all", "ragged-all-to-all")
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "copy-done", "slice-done", "async-start", "async-update", "async-done"),
    *(f"{name}-done" for name in COLLECTIVES),
}
_GROUPS = re.compile(r"replica_groups=(\{[\d,{} ]*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?|mesh\[[^\]]*\] ?\{[^}]*\})")
_PAIRS = re.compile(r"source_target_pairs=\{([\d,{} ]*)\}")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


@dataclass
class Traffic:
    """Of one device, for one run of a program.

    Attributes:
      flops: of matrix products, recomputed and replicated ones too.
      hbm_bytes: read from and written to main memory by instructions; what a fusion keeps on the chip is not counted.
      sent: bytes sent to other devices, by (collective, mesh axes), such as ``("all-gather", "fsdp")``.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: Counter = field(default_factory=Counter)

    def add(self, other: "Traffic", times: int = 1) -> None:
        """Counts another piece of the program, run so many times."""
        self.flops += times * other.flops
        self.hbm_bytes += times * other.hbm_bytes
        for key, size in other.sent.items():
            self.sent[key] += times * size

    def by_axis(self) -> dict[str, float]:
        """Bytes sent by mesh axes."""
        total: Counter = Counter()
        for (_, axes), size in self.sent.items():
            total[axes] += size
        return dict(total)


def traffic(program: Program, mesh_shape: dict[str, int]) -> Traffic:
    """Counts a program.

    Args:
      program: from :func:`~immunax.runtime.hlo.parse`.
      mesh_shape: sizes by axis, in the mesh's order; device i of the program is the i-th of the mesh.
    """

    @lru_cache(maxsize=None)
    def inside(name: str) -> Traffic:
        total, computation, seen = Traffic(), program.computations[name], set()
        for instruction in computation.values():
            _count(instruction, computation, total, seen)
        return total

    def _count(instruction: Instruction, computation: Computation, total: Traffic, seen: set) -> None:
        called = instruction.called()
        if instruction.opcode == "while":
            total.add(inside(called["body"]), program.trips(instruction))
        elif instruction.opcode == "conditional":
            total.add(max((inside(name) for name in called.values()), key=lambda each: each.hbm_bytes))
        elif instruction.opcode in ("call", "async-start"):
            for name in called.values():
                total.add(inside(name))
        total.hbm_bytes += hbm_bytes(instruction, computation, program)
        for each, home in _products_and_collectives(instruction, computation, program):
            if each.opcode in ("dot", "convolution"):
                total.flops += product_flops(each, home)
                continue
            # A TPU lays pieces of one collective into several fusions; they share its channel.
            channel = _CHANNEL.search(each.attributes)
            if channel is None or channel[1] not in seen:
                seen.add(channel[1] if channel else None)
                kind = _kind(each, home)
                members, axes = group(each.attributes, mesh_shape)
                if members > 1:
                    total.sent[kind, axes] += sent_bytes(kind, each, home, members)

    return inside(program.entry)


def _products_and_collectives(instruction: Instruction, computation: Computation, program: Program):
    """Those of one instruction, of a fusion's inside too, each with the computation that holds it."""
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called()["calls"]]
        for each in inner.values():
            yield from _products_and_collectives(each, inner, program)
    elif instruction.opcode in ("dot", "convolution") or instruction.opcode.removesuffix("-start") in COLLECTIVES:
        yield instruction, computation


def _kind(instruction: Instruction, home: Computation) -> str:
    kind = instruction.opcode.removesuffix("-start")
    # A TPU writes a reduce-scatter as a fusion of an all-reduce and the slice that each device keeps.
    only = [each for each in home.values() if each.root and each.opcode in ("dynamic-slice", "slice")]
    return "reduce-scatter" if kind == "all-reduce" and only and _reads(only[0], instruction, home) else kind


def _reads(root: Instruction, source: Instruction, home: Computation) -> bool:
    name = root.operands[0]
    while name in home and home[name].opcode in ("bitcast", "reshape", "copy", "convert"):
        name = home[name].operands[0]
    return name == source.name


def sent_bytes(kind: str, instruction: Instruction, home: Computation, members: int) -> float:
    """What each device of a group sends, by the ring algorithm: the least that a torus can do with.

    Args:
      kind: of collective.
      instruction: in a form that makes its result at once, or ``-start``.
      home: the computation around it.
      members: n devices in the group.

    Returns:
      ``(n - 1) / n`` of the whole for a gather, scatter or exchange, twice that for a reduction to all; a permutation
      sends its operand.
    """
    given = sum(array.bytes for name in instruction.operands if name in home for array in home[name].arrays)
    share = (members - 1) / members
    if kind == "all-gather":
        return (members - 1) * given
    if kind == "collective-permute":
        return given
    return (2 if kind == "all-reduce" else 1) * share * given


def group(attributes: str, mesh_shape: dict[str, int]) -> tuple[int, str]:
    """How many devices a collective joins, and along which mesh axes (joined by ``+``).

    Args:
      attributes: of the instruction, with ``replica_groups`` written out or as a transposed iota, or
        ``source_target_pairs``.
      mesh_shape: sizes by axis.
    """
    devices = int(np.prod(list(mesh_shape.values())))
    groups = _groups(attributes, devices)
    first = next((each for each in groups if len(each) > 1), groups[0])
    places = np.stack([np.array(np.unravel_index(each, tuple(mesh_shape.values()))).T for each in groups if len(each) > 1] or [
        np.zeros((1, 1, len(mesh_shape)), int)
    ])
    varies = (places != places[:, :1]).any(axis=(0, 1))
    return len(first), "+".join(axis for axis, moves in zip(mesh_shape, varies, strict=True) if moves)


def _groups(attributes: str, devices: int) -> list[Sequence[int]]:
    pairs = _PAIRS.search(attributes)
    if pairs:
        numbers = _numbers(pairs[1])
        moves = list(zip(numbers[::2], numbers[1::2], strict=True))
        return [move for move in moves if move[0] != move[1]] or [(0,)]
    found = _GROUPS.search(attributes)
    if found is None or found[1] in ("{}", "{{}}"):
        return [range(devices)]
    if found[1].startswith("{"):
        return [_numbers(part) for part in re.findall(r"\{([\d,]+)\}", found[1])]
    if found[1].startswith("["):
        shape, source, *order = (_numbers(part) for part in re.findall(r"[\d,]+", found[1]))
        numbers = np.arange(np.prod(source)).reshape(source)
        return numbers.transpose(order[0] if order else range(len(source))).reshape(shape).tolist()
    return _named_groups(found[1], devices)


def _named_groups(text: str, devices: int) -> list[Sequence[int]]:
    """Groups along axes that XLA has named itself: ``mesh['a'=64,'b'=4] {'a'}``, or ``'a':(2)8``, 8 ways behind the first 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", text)}
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", text.rpartition("{")[2])
    shape, joined = [], []
    for name, size in sizes.items():
        cuts = {1, size}
        spans = [(int(before), int(before) * int(ways)) if ways else (1, size) for axis, before, ways in chosen if axis == name]
        for span in spans:
            cuts |= set(span)
        ordered = sorted(cuts)
        for low, high in zip(ordered, ordered[1:], strict=False):
            if any(begin <= low and high <= end for begin, end in spans):
                joined.append(len(shape))
            shape.append(high // low)
    members = int(np.prod([shape[place] for place in joined]))
    numbers = np.arange(devices).reshape(shape)
    return np.moveaxis(numbers, joined, range(-len(joined), 0)).reshape(-1, members).tolist()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def product_flops(instruction: Instruction, home: Computation) -> float:
    """Of a ``dot`` or a ``convolution`` (a TPU's form of one), two for each multiplication and addition."""
    left, right = (home[name].arrays[0].dims for name in instruction.operands[:2])
    result = instruction.arrays[0]
    if instruction.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [left[int(axis)] for axis in axes[1].split(",") if axis] if axes else []
        return 2.0 * result.elements * float(np.prod(contracted))
    labels = _LABELS.search(instruction.attributes)
    if labels is None:
        return 0.0
    on_left, on_right, on_result = labels.groups()
    pairs = 1.0
    for place in sorted(set(on_result) - {"b", "f"}):
        pairs *= _overlaps(
            instruction.attributes,
            int(place),
            left[on_left.index(place)],
            right[on_right.index(place)],
            result.dims[on_result.index(place)],
        )
    batches = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = left[on_left.index("b")] // (int(batches[1]) if batches else 1)
    return 2.0 * batch * right[on_right.index("i")] * right[on_right.index("o")] * pairs


def _overlaps(attributes: str, place: int, base: int, kernel: int, outputs: int) -> int:
    """How many (output, kernel) positions along one spatial axis meet an element, and no padding or hole."""

    def entry(name: str, default: str) -> str:
        found = re.search(rf"\b{name}=([\dx_\-]+)", window[1] if window else "")
        return found[1].split("x")[place] if found else default

    window = re.search(r"window=\{([^}]*)\}", attributes)
    stride, low = int(entry("stride", "1")), int(entry("pad", "0_0").split("_")[0])
    hole, spread = int(entry("lhs_dilate", "1")), int(entry("rhs_dilate", "1"))
    at = np.arange(outputs)[:, None] * stride - low + np.arange(kernel)[None, :] * spread
    return int(((at >= 0) & (at % hole == 0) & (at // hole < base)).sum())


def hbm_bytes(instruction: Instruction, computation: Computation, program: Program) -> float:
    """Bytes that one instruction outside a fusion reads from and writes to main memory; a loop's are its body's."""
    if instruction.opcode in _FREE:
        return 0.0
    operands = [computation[name].arrays for name in instruction.operands if name in computation]
    if instruction.opcode in ("copy-start", "slice-start"):
        to, source = instruction.arrays[0], operands[0][0]
        if instruction.opcode == "slice-start":
            to = instruction.arrays[-2] if len(instruction.arrays) > 2 else instruction.arrays[-1]
        return to.bytes * ((to.space == 0) + (source.space == 0))
    written = sum(_hbm(array) for array in instruction.arrays)
    read = [sum(_hbm(array) for array in arrays) for arrays in operands]
    if instruction.opcode == "fusion":
        return _fusion_bytes(instruction, program.computations[instruction.called()["calls"]], written, read)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * read[1 if instruction.opcode == "dynamic-update-slice" else -1]
    return written + sum(read)


def _hbm(array: Array) -> int:
    return array.bytes if array.space == 0 else 0


def _fusion_bytes(instruction: Instruction, inner: Computation, written: float, read: list[float]) -> float:
    """A fusion reads of an operand only what it slices from it, and writes of an operand that it updates only the update."""
    parameters = {int(each.attributes): each.name for each in inner.values() if each.opcode == "parameter"}
    total = written
    for number, size in enumerate(read):
        users = [each for each in inner.values() if parameters.get(number) in each.operands]
        parts = [_touched(each, parameters[number], inner) for each in users]
        total += size if None in parts or not users else min(size, sum(part for part in parts if part is not None))
    for each in inner.values():
        if each.opcode == "dynamic-update-slice" and each.arrays[0].bytes <= written:
            total += inner[each.operands[1]].arrays[0].bytes - each.arrays[0].bytes
    return max(total, 0.0)


def _touched(user: Instruction, name: str, inner: Computation) -> float | None:
    """Bytes of an operand that an instruction within a fusion needs; None for all of them."""
    if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
        return user.arrays[0].bytes
    if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        return 0
    return None

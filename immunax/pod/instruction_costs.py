"""What single instructions of a compiled program cost a device: products, and bytes to and from main memory."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from immunax.pod.hlo import Array, Computation, HloProgram, Instruction

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all", "ragged-all-to-all")
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"),
    *(
        "partition-id",
        "replica-id",
        "opt-barrier",
        "copy-done",
        "slice-done",
        "async-start",
        "async-update",
        "async-done",
    ),
    *(f"{name}-done" for name in COLLECTIVES),
}
_ALIASES = re.compile(r"\{(\d+)\}: \((\d+), \{\}\)")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


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


def hbm_bytes(instruction: Instruction, computation: Computation, program: HloProgram) -> float:
    """Bytes that one instruction outside a fusion reads from and writes to main memory; a loop's are its body's."""
    if instruction.opcode in _FREE:
        return 0.0
    operands = [computation[name].arrays for name in instruction.operands if name in computation]
    if instruction.opcode in ("copy-start", "slice-start"):
        # A slice's result holds its source before the part that it takes.
        to, source = instruction.arrays[0 if instruction.opcode == "copy-start" else 1], operands[0][0]
        return to.bytes * ((to.space == 0) + (source.space == 0))
    written = sum(_hbm(array) for array in instruction.arrays)
    read = [sum(_hbm(array) for array in arrays) for arrays in operands]
    if instruction.opcode == "fusion":
        if in_pieces(instruction):
            written, read = _beside_the_collective(instruction, operands)
        return _fusion_bytes(program.computations[instruction.called()["calls"]], written, read, program)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * read[1 if instruction.opcode == "dynamic-update-slice" else -1]
    return written + sum(read)


def _hbm(array: Array) -> int:
    return array.bytes if array.space == 0 else 0


def in_pieces(instruction: Instruction) -> bool:
    """Whether a fusion holds one piece of a collective, whose buffers it passes on."""
    return instruction.called().get("calls", "").startswith("async_collective_fusion")


def moved_bytes(collective: Instruction, home: Computation) -> float:
    """What a collective reads from and writes to main memory."""
    read = sum(_hbm(array) for name in collective.operands if name in home for array in home[name].arrays)
    return read + sum(_hbm(array) for array in collective.arrays)


def _beside_the_collective(instruction: Instruction, operands: Sequence[Sequence[Array]]) -> tuple[float, list[float]]:
    """What a fusion writes, and reads of each operand, but for the buffers that it passes on."""
    passed = [(int(made), int(taken)) for made, taken in _ALIASES.findall(instruction.attributes)]
    made, taken = ({pair[side] for pair in passed} for side in (0, 1))
    written = sum(_hbm(array) for place, array in enumerate(instruction.arrays) if place not in made)
    return written, [
        0 if place in taken else sum(_hbm(array) for array in arrays) for place, arrays in enumerate(operands)
    ]


def _fusion_bytes(inner: Computation, written: float, read: Sequence[float], program: HloProgram) -> float:
    """A fusion reads of an operand only what it slices from it, and writes of an operand that it updates only the update."""
    parameters = {int(each.attributes): each.name for each in inner.values() if each.opcode == "parameter"}
    total = written
    for number, size in enumerate(read):
        parts = list(_touched(parameters[number], inner, program)) if number in parameters else []
        total += size if None in parts or not parts else min(size, sum(part for part in parts if part is not None))
    for each in inner.values():
        if each.opcode == "dynamic-update-slice" and each.arrays[0].bytes <= written:
            total += inner[each.operands[1]].arrays[0].bytes - each.arrays[0].bytes
    return max(total, 0.0)


def _touched(name: str, inner: Computation, program: HloProgram) -> Iterator[float | None]:
    """Bytes that each instruction within a fusion needs of one of its values; None for all of them."""
    for user in inner.values():
        if name not in user.operands:
            continue
        if user.opcode == "bitcast":
            yield from _touched(user.name, inner, program)
        elif user.opcode == "fusion":
            within = program.computations[user.called()["calls"]]
            for each in within.values():
                if each.opcode == "parameter" and user.operands[int(each.attributes)] == name:
                    yield from _touched(each.name, within, program)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            yield user.arrays[0].bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            yield 0
        else:
            yield None

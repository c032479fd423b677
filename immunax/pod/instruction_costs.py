"""What single instructions of a compiled program cost a device: products, and bytes to and from main memory."""

import math
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
    if instruction.opcode == "fusion":
        return _fusion_bytes(instruction, operands, program)
    written = sum(_hbm(array) for array in instruction.arrays)
    read = [sum(_hbm(array) for array in arrays) for arrays in operands]
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * read[1 if instruction.opcode == "dynamic-update-slice" else -1]
    return written + sum(read)


def _hbm(array: Array) -> int:
    return array.bytes if array.space == 0 else 0


def _fusion_bytes(fusion: Instruction, operands: Sequence[Sequence[Array]], program: HloProgram) -> float:
    """A fusion reads of an operand only what it slices from it, and writes of an operand that it updates only the update.

    What it hands on as it came, as a fusion around a collective on its way does, is neither read nor written.
    """
    inner = program.computations[fusion.called()["calls"]]
    total = 0.0
    for number, arrays in enumerate(operands):
        size = sum(_hbm(array) for array in arrays)
        total += min(size, _read_of(number, inner, program))
    root = _root(inner)
    made = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(made) != len(fusion.arrays):
        return total + sum(_hbm(array) for array in fusion.arrays)
    return total + sum(
        min(_hbm(array), _written_of(each, inner, program)) for array, each in zip(fusion.arrays, made, strict=True)
    )


def _root(computation: Computation) -> Instruction:
    return next(each for each in computation.values() if each.root)


def _read_of(number: int, inner: Computation, program: HloProgram) -> float:
    """Bytes that a fused computation needs of one parameter; infinite for all of them."""
    found = [each.name for each in inner.values() if each.opcode == "parameter" and int(each.attributes) == number]
    return sum(_touched(found[0], inner, program)) if found else math.inf


def _touched(name: str, inner: Computation, program: HloProgram) -> Iterator[float]:
    """Bytes that each instruction within a fusion needs of one of its values."""
    for user in inner.values():
        if name not in user.operands:
            continue
        if user.opcode == "bitcast":
            yield from _touched(user.name, inner, program)
        elif user.opcode == "fusion":
            nested = program.computations[user.called()["calls"]]
            places = [place for place, operand in enumerate(user.operands) if operand == name]
            yield from (_read_of(place, nested, program) for place in places)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            yield user.arrays[0].bytes
        elif _on_its_way(user, inner) or (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
            yield 0
        elif not (user.opcode == "tuple" and user.root):
            yield math.inf


def _on_its_way(instruction: Instruction, inner: Computation) -> bool:
    """Whether it is a piece of a collective that goes on in other fusions, of which the last one gives nothing else."""
    return instruction.opcode in COLLECTIVES and _root(inner).opcode == "tuple"


def _written_of(value: Instruction, inner: Computation, program: HloProgram) -> float:
    """Bytes that a fusion writes of one of its results; infinite for all of them."""
    if value.opcode == "bitcast":
        return _written_of(inner[value.operands[0]], inner, program)
    if value.opcode == "parameter" or _on_its_way(value, inner):
        return 0
    if value.opcode == "dynamic-update-slice":
        return inner[value.operands[1]].arrays[0].bytes
    if value.opcode == "fusion" and len(value.arrays) == 1:
        nested = program.computations[value.called()["calls"]]
        # Its own parameters are made by what is around it.
        return math.inf if _root(nested).opcode == "parameter" else _written_of(_root(nested), nested, program)
    return math.inf

"""What a compiled program moves and multiplies on each device, counted from its text.

XLA's own ``cost_analysis`` counts the body of a loop once, and layers and attack steps are loops here. This walk takes
each instruction as often as it runs. Of a conditional the branch that moves most is counted.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from immunax.pod.hlo import Computation, HloProgram, Instruction
from immunax.pod.instruction_costs import COLLECTIVES, hbm_bytes, product_flops
from immunax.pod.replica_groups import group

_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclass
class Traffic:
    """Of one device, for one run of a program.

    Attributes:
      flops: of matrix products, recomputed and replicated ones too.
      hbm_bytes: read from and written to main memory by instructions; what a fusion keeps on the chip is not counted.
      sent: bytes sent to other devices, by (collective, mesh axes), such as ``("all-gather", "fsdp")``.
      waited: of these the bytes that the device waits for, by collectives that the compiler has put beside no other work.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    waited: float = 0.0

    def add(self, other: "Traffic", times: int = 1) -> None:
        """Counts another piece of the program, run so many times."""
        self.flops += times * other.flops
        self.hbm_bytes += times * other.hbm_bytes
        self.waited += times * other.waited
        for key, size in other.sent.items():
            self.sent[key] += times * size

    def by_axis(self) -> dict[str, float]:
        """Bytes sent by mesh axes."""
        total: dict[str, float] = defaultdict(float)
        for (_, axes), size in self.sent.items():
            total[axes] += size
        return dict(total)


def traffic(program: HloProgram, mesh_shape: Mapping[str, int]) -> Traffic:
    """Counts a program.

    Args:
      program: from :func:`~immunax.pod.hlo.parse`.
      mesh_shape: sizes by axis, in the mesh's order; device i of the program is the i-th of the mesh.
    """

    @cache
    def inside(name: str) -> Traffic:
        total, computation = Traffic(), program.computations[name]
        collectives: dict[str, list[tuple[Instruction, Computation]]] = defaultdict(list)
        for instruction in computation.values():
            _add_called(instruction, computation, total)
            total.hbm_bytes += hbm_bytes(instruction, computation, program)
            for each, home in _products_and_collectives(instruction, computation, program):
                if each.opcode in ("dot", "convolution"):
                    total.flops += product_flops(each, home)
                else:
                    channel = _CHANNEL.search(each.attributes)
                    collectives[channel[1] if channel else f"{instruction.name} {each.name}"].append((each, home))
        for pieces in collectives.values():
            _add_collective(pieces, total)
        return total

    def _add_called(instruction: Instruction, computation: Computation, total: Traffic) -> None:
        called = instruction.called()
        if instruction.opcode == "while":
            total.add(inside(called["body"]), program.trips(instruction, computation))
        elif instruction.opcode == "conditional":
            total.add(max((inside(name) for name in called.values()), key=lambda each: each.hbm_bytes))
        elif instruction.opcode in ("call", "async-start"):
            for name in called.values():
                total.add(inside(name))

    def _add_collective(pieces: Sequence[tuple[Instruction, Computation]], total: Traffic) -> None:
        # A TPU lays pieces of one collective into several fusions, beside products; they share its channel.
        each, home = pieces[0]
        kind = _kind(each, home)
        members, axes = group(each.attributes, mesh_shape)
        if members > 1:
            size = sent_bytes(kind, each, home, members)
            total.sent[kind, axes] += size
            total.waited += size if len(pieces) == 1 and not each.opcode.endswith("-start") else 0

    return inside(program.entry)


def _products_and_collectives(
    instruction: Instruction, computation: Computation, program: HloProgram
) -> Iterator[tuple[Instruction, Computation]]:
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

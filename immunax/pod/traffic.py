"""What a compiled program moves and multiplies on each device, counted from its text.

XLA's own ``cost_analysis`` counts the body of a loop once, and layers and attack steps are loops here. This walk takes
each instruction as often as it runs. Of a conditional the branch that moves most is counted.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from immunax.pod.hlo import Computation, HloProgram, Instruction
from immunax.pod.instruction_costs import COLLECTIVES, hbm_bytes, in_pieces, moved_bytes, product_flops
from immunax.pod.replica_groups import group
from immunax.pod.slice_transfers import between_slices, is_between_slices

_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclass
class Traffic:
    """Of one device, for one run of a program.

    Attributes:
      flops: of matrix products, recomputed and replicated ones too.
      hbm_bytes: read from and written to main memory by instructions; what a fusion keeps on the chip is not counted.
      sent: bytes sent to other devices of its slice, by (collective, mesh axes), such as ``("all-gather", "fsdp")``.
      sent_over_dcn: bytes sent to other slices, likewise.
      waited: bytes sent within a slice that the device waits for, by collectives that the compiler has put beside no other work.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    sent_over_dcn: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    waited: float = 0.0

    def add(self, other: "Traffic", times: int = 1) -> None:
        """Counts another piece of the program, run so many times."""
        self.flops += times * other.flops
        self.hbm_bytes += times * other.hbm_bytes
        self.waited += times * other.waited
        for mine, theirs in ((self.sent, other.sent), (self.sent_over_dcn, other.sent_over_dcn)):
            for key, size in theirs.items():
                mine[key] += times * size

    def by_axis(self) -> dict[str, float]:
        """Bytes sent within a slice, by mesh axes."""
        return _by_axis(self.sent)

    def by_axis_over_dcn(self) -> dict[str, float]:
        """Bytes sent between slices, by mesh axes."""
        return _by_axis(self.sent_over_dcn)

    def over(self, axis: str) -> dict[tuple[str, str], float]:
        """What is sent along one axis, alone or with others, within a slice and between slices; empty proves that nothing is."""
        both = [*self.sent.items(), *self.sent_over_dcn.items()]
        found: dict[tuple[str, str], float] = defaultdict(float)
        for (kind, axes), size in both:
            if axis in axes.split("+"):
                found[kind, axes] += size
        return dict(found)


def _by_axis(sent: Mapping[tuple[str, str], float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for (_, axes), size in sent.items():
        total[axes] += size
    return dict(total)


def traffic(program: HloProgram, mesh_shape: Mapping[str, int], slices: Mapping[str, int] | None = None) -> Traffic:
    """Counts a program.

    For several slices XLA writes the program of one: its replica groups number the devices of a slice, and what goes to
    others is sent to the host, with the slices that it goes to.

    Args:
      program: from :func:`~immunax.pod.hlo.parse`.
      mesh_shape: sizes by axis, in the mesh's order; device i of the program is the i-th of the mesh, or of its part on a slice.
      slices: how many slices each axis spans; None for one slice.
    """
    slices = slices or dict.fromkeys(mesh_shape, 1)
    inside_a_slice = {axis: size // slices[axis] for axis, size in mesh_shape.items()}

    @cache
    def inside(name: str) -> _Piece:
        piece, computation = _Piece(), program.computations[name]
        for instruction in computation.values():
            _count(instruction, computation, piece)
        return piece

    def _count(instruction: Instruction, computation: Computation, piece: _Piece) -> None:
        called = instruction.called()
        if instruction.opcode == "while":
            piece.add(inside(called["body"]), program.trips(instruction, computation))
        elif instruction.opcode == "conditional":
            piece.add(max((inside(name) for name in called.values()), key=lambda each: each.whole().hbm_bytes))
        elif instruction.opcode in ("call", "async-start"):
            for name in called.values():
                piece.add(inside(name))
        piece.counted.hbm_bytes += hbm_bytes(instruction, computation, program)
        for each, home in _products_and_collectives(instruction, computation, program):
            if each.opcode in ("dot", "convolution"):
                piece.counted.flops += product_flops(each, home)
            elif each.opcode == "send":
                kind, members, axes = between_slices(each.attributes, slices)
                piece.counted.sent_over_dcn[kind, axes] += sent_bytes(kind, each, home, members)
            else:
                channel = _CHANNEL.search(each.attributes)
                found = _collective(each, home, inside_a_slice)
                if in_pieces(instruction):
                    found.hbm_bytes += moved_bytes(each, home)
                piece.meet(channel[1] if channel else None, found)

    return inside(program.entry).whole()


@dataclass
class _Piece:
    """A part of a program: what is counted, and collectives of which other parts may hold pieces too.

    A TPU lays pieces of one collective into several fusions, to send while it multiplies; they share its channel, and some lie
    within small loops. The collective runs once for each run of the smallest part that holds all of them.

    Attributes:
      counted: of all else.
      channels: how often each collective runs, and what it costs once, by channel; in pieces it is not waited for.
    """

    counted: Traffic = field(default_factory=Traffic)
    channels: dict[str, tuple[int, Traffic]] = field(default_factory=dict)

    def meet(self, channel: str | None, cost: Traffic) -> None:
        """Counts a collective, or a piece of one."""
        if channel is None:
            self.counted.add(cost)
        else:
            self._meet(channel, 1, cost)

    def add(self, other: "_Piece", times: int = 1) -> None:
        """Counts a part of this part, run so many times."""
        self.counted.add(other.counted, times)
        for channel, (runs, cost) in other.channels.items():
            self._meet(channel, runs * times, cost)

    def _meet(self, channel: str, runs: int, cost: Traffic) -> None:
        known = channel in self.channels
        self.channels[channel] = (1, replace(cost, waited=0.0)) if known else (runs, cost)

    def whole(self) -> Traffic:
        """All of it, run once."""
        total = Traffic()
        total.add(self.counted)
        for runs, cost in self.channels.values():
            total.add(cost, runs)
        return total


def _collective(instruction: Instruction, home: Computation, inside_a_slice: Mapping[str, int]) -> Traffic:
    found, kind = Traffic(), _kind(instruction, home)
    members, axes = group(instruction.attributes, inside_a_slice)
    if members > 1:
        size = sent_bytes(kind, instruction, home, members)
        found.sent[kind, axes] += size
        found.waited += 0 if instruction.opcode.endswith("-start") else size
    return found


def _products_and_collectives(
    instruction: Instruction, computation: Computation, program: HloProgram
) -> Iterator[tuple[Instruction, Computation]]:
    """Those of one instruction, of a fusion's inside too, each with the computation that holds it."""
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called()["calls"]]
        for each in inner.values():
            yield from _products_and_collectives(each, inner, program)
    elif instruction.opcode in ("dot", "convolution") or _sends(instruction):
        yield instruction, computation


def _sends(instruction: Instruction) -> bool:
    if instruction.opcode == "send":
        return is_between_slices(instruction.attributes)
    return instruction.opcode.removesuffix("-start") in COLLECTIVES


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

"""What a compiled program moves and multiplies on each device, counted from its text.

XLA's own ``cost_analysis`` counts the body of a loop once, and layers and attack steps are loops here. This walk takes
each instruction as often as it runs. Of a conditional the branch that moves most is counted.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from immunax.pod.hlo import Computation, HloProgram, Instruction
from immunax.pod.instruction_costs import COLLECTIVES, hbm_bytes, product_flops
from immunax.pod.replica_groups import group
from immunax.pod.slice_transfers import between_slices, is_between_slices

PRODUCTS = ("dot", "convolution")
_BEGINNING = "async-collective-start"
_CHANNEL = re.compile(r"channel_id=(\d+)")
_KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|__cudnn\$fmha\w*)"')
_NUMBER = re.compile(r"(\.\d+)+$")


@dataclass
class Traffic:
    """Of one device, for one run of a program.

    Attributes:
      flops: of matrix products, recomputed and replicated ones too.
      hbm_bytes: read from and written to main memory by instructions; what a fusion keeps on the chip is not counted.
      sent: bytes sent to other devices of its slice, by (collective, mesh axes), such as ``("all-gather", "fsdp")``.
      waited: of these the bytes that the device waits for, by collectives that the compiler has put beside no other work.
      sent_over_dcn: bytes sent to other slices, as ``sent`` has them.
      gathered: of what is sent, the bytes of all-gathers, by the dtype that XLA writes, such as ``bf16``.
      kernels: calls of kernels that were written by hand, by their names.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    waited: float = 0.0
    sent_over_dcn: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    gathered: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    kernels: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, other: "Traffic", times: int = 1) -> None:
        """Counts another piece of the program, run so many times."""
        self.flops += times * other.flops
        self.hbm_bytes += times * other.hbm_bytes
        self.waited += times * other.waited
        for name in ("sent", "sent_over_dcn", "gathered", "kernels"):
            mine = getattr(self, name)
            for key, amount in getattr(other, name).items():
                mine[key] += times * amount

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
    collectives = _collectives(program)

    @cache
    def inside(name: str) -> Traffic:
        total, computation = Traffic(), program.computations[name]
        for instruction in computation.values():
            for called, times in _called(instruction, computation):
                total.add(called, times)
            total.hbm_bytes += hbm_bytes(instruction, computation, program)
            if _KERNEL.search(instruction.attributes):
                total.kernels[_NUMBER.sub("", instruction.name)] += 1
            for each, home in _products_and_collectives(instruction, computation, program):
                total.flops += product_flops(each, home) if each.opcode in PRODUCTS else 0
        for each, home, alone in collectives[name]:
            if each.opcode == "send":
                kind, members, axes = between_slices(each.attributes, slices)
                total.sent_over_dcn[kind, axes] += sent_bytes(kind, each, home, members)
                continue
            kind = _kind(each, home)
            members, axes = group(each.attributes, inside_a_slice)
            if members > 1:
                size = sent_bytes(kind, each, home, members)
                total.sent[kind, axes] += size
                if kind == "all-gather":
                    total.gathered[home[each.operands[0]].arrays[0].dtype] += size
                total.waited += size if alone else 0
        return total

    def _called(instruction: Instruction, computation: Computation) -> Iterator[tuple[Traffic, int]]:
        names = program.runs_of(instruction, computation)
        if instruction.opcode == "conditional":
            yield max((inside(name) for name in names), key=lambda each: each.hbm_bytes), 1
        else:
            yield from ((inside(name), times) for name, times in names.items())

    return inside(program.entry)


class _Collective(NamedTuple):
    """One of them, with the computation around it, and whether it is a single instruction that begins and ends it."""

    instruction: Instruction
    home: Computation
    alone: bool


def _collectives(program: HloProgram) -> Mapping[str, list[_Collective]]:
    """The collectives of each computation that a program runs.

    A TPU lays pieces of one collective into several fusions beside products, even into those of a loop that begins and ends
    meanwhile; they share a channel with the fusion that it begins in. Other collectives may share a channel and be none of it: of
    a loop whose first turn is laid out apart, each has its twin there.
    """
    every = [
        (name, instruction, each, home)
        for name in program.runs()
        for instruction in program.computations[name].values()
        for each, home in _products_and_collectives(instruction, program.computations[name], program)
        if each.opcode not in PRODUCTS
    ]
    split = {_channel(each) for _, instruction, each, _ in every if instruction.name.startswith(_BEGINNING)} - {None}
    found: dict[str, list[_Collective]] = defaultdict(list)
    for name, instruction, each, home in every:
        begins = instruction.name.startswith(_BEGINNING)
        whole = instruction.opcode != "fusion" or _channel(each) not in split or _is_scatter(each, home)
        if begins or whole:
            found[name].append(_Collective(each, home, not begins and not each.opcode.endswith("-start")))
    return found


def _channel(collective: Instruction) -> str | None:
    channel = _CHANNEL.search(collective.attributes)
    return None if channel is None else channel[1]


def _products_and_collectives(
    instruction: Instruction, computation: Computation, program: HloProgram
) -> Iterator[tuple[Instruction, Computation]]:
    """Those of one instruction, of a fusion's inside too, each with the computation that holds it."""
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called()["calls"]]
        for each in inner.values():
            yield from _products_and_collectives(each, inner, program)
    elif instruction.opcode in PRODUCTS or _sends(instruction):
        yield instruction, computation


def _sends(instruction: Instruction) -> bool:
    if instruction.opcode == "send":
        return is_between_slices(instruction.attributes)
    return instruction.opcode.removesuffix("-start") in COLLECTIVES


def _kind(instruction: Instruction, home: Computation) -> str:
    return "reduce-scatter" if _is_scatter(instruction, home) else instruction.opcode.removesuffix("-start")


def _is_scatter(instruction: Instruction, home: Computation) -> bool:
    """Whether it is a reduce-scatter, which a TPU writes as a fusion of an all-reduce and the slice that each device keeps."""
    only = [each for each in home.values() if each.root and each.opcode in ("dynamic-slice", "slice")]
    is_sum = instruction.opcode.removesuffix("-start") == "all-reduce"
    return is_sum and bool(only) and _reads(only[0], instruction, home)


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

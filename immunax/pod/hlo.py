"""Reads the text of a compiled XLA program: its computations, and how often each instruction runs.

Only what counting needs is kept: opcodes, shapes, operands, attributes, the computations that an instruction calls, and
the trip counts of loops.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_INDEX = re.compile(r"\bindex=(\d+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclass(frozen=True)
class Array:
    """One array that an instruction makes or reads.

    Attributes:
      dtype: as XLA writes it, such as ``bf16``.
      dims: sizes.
      space: memory space; 0 is a device's main memory, others are on the chip or on the host.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        """How many."""
        count = 1
        for size in self.dims:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Size without the padding of tiles."""
        return -(-self.elements * _bits(self.dtype) // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: of the line.
      arrays: what it makes, the parts of a tuple in order.
      operands: names of the instructions it reads.
      attributes: the rest of the line.
      root: whether the computation returns it.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def called(self) -> dict[str, str]:
        """Computations it calls, by the attribute that names them; branches are numbered."""
        found = dict(_CALLED.findall(self.attributes))
        branches = _BRANCHES.search(self.attributes)
        if branches:
            names = branches[1].replace("%", "").split(",")
            found |= {f"branch {number}": name.strip() for number, name in enumerate(names)}
        return found


Computation = Mapping[str, Instruction]
"""Instructions by name, in order."""


@dataclass(frozen=True)
class HloProgram:
    """A compiled program, as each device runs it.

    Attributes:
      computations: by name.
      entry: the name of the one that is run.
    """

    computations: Mapping[str, Computation]
    entry: str

    def runs_of(self, instruction: Instruction, home: Computation) -> dict[str, int]:
        """The computations that one instruction runs, fused ones apart, and how often: of a conditional every branch."""
        called = instruction.called()
        if instruction.opcode == "while":
            return {called["body"]: self.trips(instruction, home)}
        return dict.fromkeys(called.values(), 1) if instruction.opcode in ("conditional", "call", "async-start") else {}

    def runs(self) -> dict[str, int]:
        """How often each computation runs that is not fused, of conditionals every branch."""
        total: dict[str, int] = defaultdict(int)

        def walk(name: str, times: int) -> None:
            total[name] += times
            for instruction in self.computations[name].values():
                for called, each in self.runs_of(instruction, self.computations[name]).items():
                    walk(called, times * each)

        walk(self.entry, 1)
        return dict(total)

    def trips(self, loop: Instruction, home: Computation) -> int:
        """How often the body of a ``while`` runs: as XLA says, or as its counter's start, step and bound do; else 1.

        Args:
          loop: the instruction.
          home: the computation around it.
        """
        known = _TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        condition, body = (self.computations[loop.called()[part]] for part in ("condition", "body"))
        counters = [each for each in condition.values() if each.opcode == "get-tuple-element"]
        bounds = [value for each in condition.values() if (value := _constant(each)) is not None]
        if len(counters) != 1 or len(bounds) != 1:
            return max(bounds, default=1)
        place = int(_INDEX.findall(counters[0].attributes)[0])
        first = self._source(home, home[loop.operands[0]], place)
        begin = (_constant(first) if first else None) or 0
        return max(0, -(-(bounds[0] - begin) // self._step(body, place)))

    def _step(self, body: Computation, place: int) -> int:
        """What the body adds to the counter."""
        added = self._source(body, next(each for each in body.values() if each.root), place)
        if added is not None and added.opcode == "fusion":
            body = self.computations[added.called()["calls"]]
            added = next(each for each in body.values() if each.root)
        if added is None or added.opcode != "add":
            return 1
        steps = [value for name in added.operands if (value := _constant(body.get(name))) is not None]
        return steps[0] if steps else 1

    def _source(self, home: Computation, whole: Instruction, place: int) -> Instruction | None:
        """What stands in one place of a tuple, behind copies."""
        found = home.get(whole.operands[place]) if whole.opcode == "tuple" else None
        while found is not None and found.opcode in ("copy", "bitcast") and found.operands:
            found = home.get(found.operands[0])
        return found


def _constant(instruction: Instruction | None) -> int | None:
    value = instruction.attributes if instruction is not None and instruction.opcode == "constant" else ""
    return int(value) if value.isdigit() else None


def parse(text: str) -> HloProgram:
    """Reads what ``compiled.as_text()`` gives."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in _whole_lines(text):
        if current is None:
            head = _HEAD.match(line)
            # The first line's attributes may end with a brace too, but it is no computation.
            if head and "->" in line:
                current = computations.setdefault(head[2], {})
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        else:
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    return HloProgram(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """Lines, each with its attributes: those of a kernel go on behind the end of its line."""
    begun = ""
    for line in text.splitlines():
        ends = line.startswith("}}") if begun else not line.endswith("_metadata={")
        begun += line
        if ends:
            yield begun
            begun = ""


def _instruction(line: str) -> Instruction | None:
    name = _NAME.match(line)
    if name is None:
        return None
    start = name.end()
    stop = _balanced(line, start) if line[start] == "(" else line.index(" ", start)
    opcode = _OPCODE.match(line, stop)
    if opcode is None:
        return None
    end = _balanced(line, opcode.end() - 1)
    inside = line[opcode.end() : end - 1]
    # A constant's value and a parameter's number stand where others have their operands.
    rest = inside if opcode[1] in ("constant", "parameter") else line[end:]
    operands = () if opcode[1] in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name[2], opcode[1], tuple(_arrays(line[start:stop])), operands, rest, bool(name[1]))


def _balanced(line: str, start: int) -> int:
    """The place behind the bracket that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"no closing bracket: {line}")


def _arrays(text: str) -> Iterator[Array]:
    for dtype, dims, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        yield Array(dtype, tuple(int(size) for size in dims.split(",") if size), int(space[1]) if space else 0)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0

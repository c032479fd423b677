"""What XLA makes of one of immunax's sides of a case for an H200, without one; ``launch.py`` runs it.

    python benchmarks/accelerated/view.py CASE SIDE FILE [--tiny]

Memory is what the compiler lays out; what a program moves and calls is counted from its text, each loop as often as it runs.
"""

import importlib.util
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from accelerated import child
from accelerated.catalogue import named
from accelerated.h200 import NAME, PLUGINS, device
from accelerated.programs import work_of
from immunax.pod import hlo
from immunax.pod.hlo import Computation, HloProgram, Instruction
from immunax.pod.traffic import traffic


@dataclass(frozen=True)
class Turned(HloProgram):
    """A compiled program of which a loop ends by what it computes.

    Attributes:
      turns: of that loop, to be counted with; None where there is none.
    """

    turns: int | None

    def trips(self, loop: Instruction, home: Computation) -> int:
        """As XLA knows of a loop, or the turns."""
        known = self.turns is None or "known_trip_count" in loop.attributes
        return super().trips(loop, home) if known else int(self.turns or 1)


_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_BOOKKEEPING = ("Sharding", "SPMD", "annotate", "AllocateBuffer", "Pin", "Unpin")
"""Beginnings of custom calls that compute nothing."""


def compiled(chip: Any, name: str, side: str, tiny: bool) -> dict[str, Any]:
    """The fields of a row: memory by the compiler's count, and what the program moves and calls."""
    case = named(name)
    sizes = case.sized(tiny)
    assert sizes is not None
    work = work_of(case, side, sizes, "gpu")
    there = NamedSharding(Mesh(np.array([chip]), ("data",)), PartitionSpec())
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there),
        jax.eval_shape(lambda: work.inputs(work.weights())),
    )
    flops = work.needed_flops(shapes)
    begin = time.perf_counter()
    program = work.program.lower(*shapes).compile()
    seconds = time.perf_counter() - begin
    memory, parsed = program.memory_analysis(), hlo.parse(program.as_text())
    turned = Turned(parsed.computations, parsed.entry, work.turns)
    return {
        "flops": flops,
        "peak_bytes": memory.peak_memory_in_bytes,
        "compile_seconds": seconds,
        "details": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "moved": traffic(turned, {"data": 1}).hbm_bytes,
            "calls": custom_calls(turned),
        },
    }


def custom_calls(program: HloProgram) -> dict[str, int]:
    """How often each custom call runs, by its target."""
    runs, found = program.runs(), Counter()
    for name, times in runs.items():
        for each in program.computations[name].values():
            target = _TARGET.search(each.attributes) if each.opcode == "custom-call" else None
            if target and not target[1].startswith(_BOOKKEEPING):
                found[target[1]] += times
    return dict(found)


def facts() -> dict[str, Any]:
    """What compiled it, and for what."""
    there = (name for name in ("jax", "jaxlib", *PLUGINS) if importlib.util.find_spec(name) is not None)
    return {"device": NAME, "versions": {name: version(name.replace("_", "-")) for name in there}}


if __name__ == "__main__":
    CHIP = device()
    child.main(__doc__ or "", partial(compiled, CHIP), facts)

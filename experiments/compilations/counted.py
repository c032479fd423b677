"""Counts what one command compiles: every program that XLA is asked for, with its shapes, its seconds and who asked.

    uv run python experiments/compilations/counted.py MODE OUT.json certify model=organism suite=smoke

runs the command in this process, with a compilation cache of its own that is empty at first. MODE says how much of it is done:

- ``computed``: all of it;
- ``compiled``: every program is compiled, and those that multiply matrices are not run: constants are in the place of what
  they give, so that a certificate of a large model is counted without its hours;
- ``lowered``: the same, and those programs are not compiled either: for counts without seconds.
"""

import hashlib
import json
import os
import runpy
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jax._src import compiler
from jax._src.lib.mlir import ir  # pyright: ignore[reportPrivateImportUsage]
from jax._src.lib.mlir.dialects import func, hlo

MODES = COMPUTED, COMPILED, LOWERED = "computed", "compiled", "lowered"

_TOKEN, _NUMBER = 1000, -1
"""In the place of whole numbers: answers, which have rows, are some word; others, such as where a member diverged, are none."""


@dataclass(frozen=True)
class Compilation:
    """A program that XLA was asked for.

    Attributes:
      name: of the function, as JAX has it.
      shapes: of its arguments.
      seconds: until it was there.
      digest: of the program; equal ones are one, if a cache on disk is asked.
      multiplies: whether it multiplies matrices.
      asked: the innermost line of immunax that asked for it.
    """

    name: str
    shapes: str
    seconds: float
    digest: str
    multiplies: bool
    asked: str


def listen(mode: str) -> list[Compilation]:
    """From here on, in this list."""
    found: list[Compilation] = []
    compile = compiler.compile_or_get_cached

    def counted(backend: Any, program: Any, *how: Any, **named: Any) -> Any:
        text, began = program.operation.get_asm(enable_debug_info=False), time.monotonic()
        multiplies = "stablehlo.dot_general" in text
        made = None if multiplies and mode == LOWERED else compile(backend, program, *how, **named)
        seconds = round(time.monotonic() - began, 4)
        name = ir.StringAttr(program.operation.attributes["sym_name"]).value
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        found.append(Compilation(name, _shapes(program), seconds, digest, multiplies, _asked()))
        return compile(backend, _constant(program), *how, **named) if multiplies and mode != COMPUTED else made

    compiler.compile_or_get_cached = counted
    return found


def _main(program: Any) -> Any:
    return next(each for each in program.body.operations if _named(each) == "main")


def _named(function: Any) -> str:
    return ir.StringAttr(function.operation.attributes["sym_name"]).value


def _shapes(program: Any) -> str:
    with program.context:
        return " ".join(str(each).removeprefix("tensor<").removesuffix(">") for each in _main(program).type.inputs)


def _constant(program: Any) -> Any:
    """A program of the same arguments that gives constants: zeros, and whole numbers that stand for nothing in particular."""
    with program.context, ir.Location.unknown():
        made = ir.Module.parse(program.operation.get_asm(enable_debug_info=False))
        main = _main(made)
        block = main.entry_block
        for operation in reversed(list(block.operations)):
            operation.operation.erase()
        with ir.InsertionPoint(block):
            func.ReturnOp([hlo.constant(_filled(each)) for each in main.type.results])
        for each in list(made.body.operations):
            if isinstance(each, func.FuncOp) and _named(each) != "main":
                each.operation.erase()
        return made


def _filled(kind: Any) -> Any:
    shaped = ir.RankedTensorType(kind)
    element = shaped.element_type
    if isinstance(element, ir.IntegerType):
        whole = ir.IntegerType(element)
        one = 0 if whole.width == 1 or whole.is_unsigned else _TOKEN if shaped.rank >= 2 else _NUMBER
        return ir.DenseElementsAttr.get_splat(shaped, ir.IntegerAttr.get(element, one))
    return ir.DenseElementsAttr.get_splat(shaped, ir.FloatAttr.get(element, 0.0))


def _asked() -> str:
    ours = [frame for frame in traceback.extract_stack() if "/immunax/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/immunax/')[2]}:{ours[-1].lineno}" if ours else ""


def main() -> None:
    """Runs the command, writes what it compiled, and ends as it ended."""
    mode, out, command, *arguments = sys.argv[1:]
    if mode not in MODES:
        sys.exit(f"{mode}: expected one of {', '.join(MODES)}.")
    found = listen(mode)
    sys.argv = [f"immunax.{command}", *arguments]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        try:
            runpy.run_module(f"immunax.{command}", run_name="__main__")
        finally:
            Path(out).write_text(json.dumps([asdict(each) for each in found], indent=0) + "\n")


if __name__ == "__main__":
    main()

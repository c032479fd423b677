"""Floating-point operations of a traced program, on all devices together, counted from its jaxpr."""

import math
from collections.abc import Iterator
from typing import Any

import jax.extend.core as jex


def matmul_flops(jaxpr: Any, turns: int | None = None) -> float:
    """Two for each multiplication and addition of the matrix products, which are nearly all of a language model's.

    A scan counts as often as it runs, a conditional as its dearest branch, a ``shard_map`` on every device. What a kernel
    multiplies is not seen: count a program that has none (``Model.attention``).

    Args:
      jaxpr: closed or open, as ``jax.make_jaxpr`` or ``jitted.trace(...).jaxpr`` gives it.
      turns: of a loop whose length is not static; None where there is to be none.

    Raises:
      ValueError: a loop whose length is not static multiplies matrices, and ``turns`` are not given.
    """
    return sum(_equation_flops(equation, turns) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _equation_flops(equation: Any, turns: int | None) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "pallas_call":
        return 0.0
    if name == "cond":
        return max(matmul_flops(branch, turns) for branch in parameters["branches"])
    inside = sum(matmul_flops(each, turns) for each in _inner(parameters))
    if name == "scan":
        return parameters["length"] * inside
    if name == "while" and inside:
        if turns is not None:
            return turns * inside
        raise ValueError("a loop of unknown length multiplies matrices: its operations cannot be counted")
    if name == "shard_map":
        return inside * math.prod(parameters["mesh"].shape[axis] for axis in parameters["newly_manual_axes"])
    return inside


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (jex.Jaxpr, jex.ClosedJaxpr)):
                yield each

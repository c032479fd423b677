"""Floating-point operations of a traced program, on all devices together, counted from its jaxpr, kernels among it."""

import math
from collections.abc import Iterator
from typing import Any

import jax.extend.core as jex

_BTNH = 0
"""The layout of cuDNN's attention whose second axis are tokens (``jax._src.cudnn``)."""


def matmul_flops(jaxpr: Any, turns: int | None = None, kernels: bool = True) -> float:
    """Two for each multiplication and addition of the matrix products, which are nearly all of a language model's.

    A scan counts as often as it runs, a conditional as its dearest branch, a ``shard_map`` on every device, a Pallas kernel as
    often as its grid has blocks, masked ones too. Of kernels that are no program here, cuDNN's attention alone is counted.

    Args:
      jaxpr: closed or open, as ``jax.make_jaxpr`` or ``jitted.trace(...).jaxpr`` gives it.
      turns: of a loop whose length is not static; None where there is to be none.
      kernels: whether their products count.

    Raises:
      ValueError: a loop whose length is not static multiplies matrices, and ``turns`` are not given, or it is in a kernel.
    """
    return sum(_equation_flops(equation, turns, kernels) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def countable_flops(jaxpr: Any, turns: int | None = None) -> float:
    """:func:`matmul_flops`, and 0 of a program whose operations depend on numbers."""
    try:
        return matmul_flops(jaxpr, turns)
    except ValueError:
        return 0.0


def _equation_flops(equation: Any, turns: int | None, kernels: bool) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name.startswith("dot_product_attention_"):
        return _attention_flops(equation) if kernels else 0.0
    if name == "pallas_call":
        if not kernels:
            return 0.0
        # A loop within a block has nothing to do with the one whose turns are known.
        blocks = parameters["grid_mapping"].grid
        if not all(isinstance(size, int) for size in blocks):
            raise ValueError("a kernel has a grid of unknown size: its operations cannot be counted")
        return math.prod(blocks) * matmul_flops(parameters["jaxpr"])
    if name == "cond":
        return max(matmul_flops(branch, turns, kernels) for branch in parameters["branches"])
    inside = sum(matmul_flops(each, turns, kernels) for each in _inner(parameters))
    if name == "scan":
        return parameters["length"] * inside
    if name == "while" and inside:
        if turns is not None:
            return turns * inside
        raise ValueError("a loop of unknown length multiplies matrices: its operations cannot be counted")
    if name == "shard_map":
        return inside * math.prod(parameters["mesh"].shape[axis] for axis in parameters["newly_manual_axes"])
    return inside


def _attention_flops(equation: Any) -> float:
    """Of cuDNN's attention: two products of [T, S] scores, and five more backwards, where the first is made again."""
    queries, keys = (each.aval.shape for each in equation.invars[:2])
    keys_axis = 1 if equation.params["layout"] == _BTNH else 2
    products = 5 if "_bwd" in equation.primitive.name else 2
    return products * 2.0 * math.prod(queries) * keys[keys_axis]


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (jex.Jaxpr, jex.ClosedJaxpr)):
                yield each

"""Functions with a derivative of their own, which no transformation takes apart.

``jax.custom_jvp`` forgets its rule before JAX 0.12 where a scan is differentiated, since partial evaluation takes what is left
for linear. The layers of a model are a scan: the derivative of its gradient would be asked of what a kernel is made of, which
has none. A primitive keeps its rule through all of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend.core as jex
from jax.interpreters import ad, batching, mlir

Arrays = tuple[Any, ...]


class Kept(ABC):
    """A function of arrays; static, and equal to others that compute the same."""

    @abstractmethod
    def values(self, *arrays: jax.Array) -> Arrays:
        """What it gives, a tuple."""

    @abstractmethod
    def tangents(self, arrays: Arrays, directions: Arrays) -> Arrays:
        """The tangents of its values.

        Args:
          arrays: that it is a function of.
          directions: their tangents; None for those of integers.
        """

    def __call__(self, *arrays: jax.Array) -> Arrays:
        """The values, of which derivatives are those of :meth:`tangents`, any number of times."""
        jaxpr = jax.make_jaxpr(self.values)(*arrays)
        return tuple(_kept.bind(*arrays, function=self, jaxpr=jaxpr))


@dataclass(frozen=True)
class _Mapped(Kept):
    """A function mapped over an axis of each array, or of none.

    Attributes:
      function: for one element.
      axes: of each array, None for all of it.
      spmd: the mesh axes that the elements are spread over, or None.
    """

    function: Kept
    axes: tuple[int | None, ...]
    spmd: Any

    def values(self, *arrays: jax.Array) -> Arrays:
        return jax.vmap(self.function.values, self.axes, spmd_axis_name=self.spmd)(*arrays)

    def tangents(self, arrays: Arrays, directions: Arrays) -> Arrays:
        axes = tuple(None if way is None else axis for axis, way in zip(self.axes, directions, strict=True))
        return jax.vmap(self.function.tangents, (self.axes, axes), spmd_axis_name=self.spmd)(arrays, directions)


_kept = jex.Primitive("kept")
_kept.multiple_results = True


def _run(*arrays: jax.Array, function: Kept, jaxpr: jex.ClosedJaxpr) -> list[Any]:
    return jex.jaxpr_as_fun(jaxpr)(*arrays)


def _jvp(arrays: Any, directions: Any, *, function: Kept, jaxpr: jex.ClosedJaxpr) -> tuple[Any, Any]:
    given = tuple(None if way.dtype == jax.dtypes.float0 else way for way in map(ad.instantiate_zeros, directions))
    values = _kept.bind(*arrays, function=function, jaxpr=jaxpr)
    return values, list(function.tangents(tuple(arrays), given))


def _mapped(axis: Any, arrays: Any, axes: Any, *, function: Kept, jaxpr: jex.ClosedJaxpr) -> tuple[Any, Any]:
    values = _Mapped(function, tuple(axes), axis.spmd_name)(*arrays)
    return values, [0] * len(values)


_kept.def_impl(_run)
_kept.def_abstract_eval(lambda *_, function, jaxpr: list(jaxpr.out_avals))
ad.primitive_jvps[_kept] = _jvp
batching.fancy_primitive_batchers[_kept] = _mapped
mlir.register_lowering(_kept, mlir.lower_fun(_run, multiple_results=True))

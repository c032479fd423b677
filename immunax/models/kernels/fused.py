"""Attention by a kernel, differentiable any number of times.

Public flash kernels have a backward pass and no derivative of it, and no forward mode. Here the kernel gives what is asked of a
first derivative, forward and backward. A derivative of either, as an exact hypergradient takes it (reverse over reverse,
forward over reverse), is that of plain attention at the same place, written out. So within one program each pass takes the
fastest path that it can.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from immunax.models.kernels import cudnn, splash
from immunax.models.kernels.by_device import by_device
from immunax.models.kernels.kept import Kept
from immunax.models.kernels.pattern import Pattern, dense, lengthened
from immunax.runtime import console

ATTENDED = "attended"
"""What attention gives, and of a kernel each query's normaliser: small beside the scores, which the gradient makes again."""


class Kernel(NamedTuple):
    """An implementation; its arrays are as long as what ``read`` gives.

    Attributes:
      read: ``read(segment_ids) -> reading``: what the passes are told of B rows, the same for every layer; integers
        ``[B, ...]``, of which the first are the segment numbers ``[B, T']`` of a length that the kernel takes.
      forward: ``forward(pattern, query, key, value, *reading) -> (out, normaliser)``.
      backward: ``backward(pattern, query, key, value, out, normaliser, d_out, *reading) -> (d_query, d_key, d_value)``.
      most: the stretches of a row that it can be told of, padding behind the examples included; None for any number.
    """

    read: Callable[[jax.Array], tuple[jax.Array, ...]]
    forward: Callable[..., tuple[jax.Array, jax.Array]]
    backward: Callable[..., tuple[jax.Array, ...]]
    most: int | None = None


KERNELS = {
    "cudnn": Kernel(cudnn.read, cudnn.forward, cudnn.backward, cudnn.MOST),
    "splash": Kernel(splash.read, splash.forward, splash.backward),
}
"""By the name that ``compute.attention`` gives them."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fused_attention(
    kernel: str, pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, reading: tuple[jax.Array, ...]
) -> jax.Array:
    """Causal attention within segments.

    Args:
      kernel: of :data:`KERNELS`.
      pattern: of the layer.
      query: ``[B, T, H, D]``.
      key, value: ``[B, T, K, D]``, K a divisor of H.
      reading: what the kernel's ``read`` makes of segment numbers ``[B, T]`` as
        :func:`~immunax.models.attention.causal_mask` reads them; each segment is one stretch of its row, and padding that
        reads it follows it.

    Returns:
      ``[B, T, H, D]``.
    """
    return _Forward(kernel, pattern)(query, key, value, *reading)[0]


def _passed(
    kernel: str, pattern: Pattern, query: jax.Array, key: jax.Array, value: jax.Array, reading: tuple[jax.Array, ...]
) -> tuple[jax.Array, Any]:
    passed = _Forward(kernel, pattern)(query, key, value, *reading)
    out, normaliser = (checkpoint_name(each, ATTENDED) for each in passed)
    return out, (query, key, value, out, normaliser, reading)


def _returned(kernel: str, pattern: Pattern, residuals: Any, d_out: jax.Array) -> tuple[Any, ...]:
    query, key, value, out, normaliser, reading = residuals
    return *_Backward(kernel, pattern)(query, key, value, out, normaliser, d_out, *reading), None


fused_attention.defvjp(_passed, _returned)


@dataclass(frozen=True)
class _Forward(Kept):
    """Of query, key, value and reading: what attention gives, and each query's normaliser."""

    kernel: str
    pattern: Pattern

    def values(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        query, key, value, *reading = arrays
        inputs = *_as_long_as(reading, query, key, value), *reading
        forward = partial(KERNELS[self.kernel].forward, self.pattern)
        out, normaliser = by_device(forward, "qkk" + "s" * len(reading), "qn", inputs)
        return out[:, : query.shape[1]], normaliser

    def tangents(self, arrays: Any, directions: Any) -> tuple[jax.Array, ...]:
        """The normaliser is read by the backward pass alone, whose derivative accounts for it."""
        _say(self.kernel)
        plain = _plain(self.pattern, arrays[3:])
        _, d_out = jax.jvp(plain, arrays[:3], directions[:3])
        _, normaliser = jax.eval_shape(self.values, *arrays)
        return d_out, jnp.zeros(normaliser.shape, normaliser.dtype)


@dataclass(frozen=True)
class _Backward(Kept):
    """Of query, key, value, what the forward pass gave, the gradient of that, and reading: the gradients of the first three."""

    kernel: str
    pattern: Pattern

    def values(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        query, key, value, out, normaliser, d_out, *reading = arrays
        length = query.shape[1]
        query, key, value, out, d_out = _as_long_as(reading, query, key, value, out, d_out)
        inputs = query, key, value, out, normaliser, d_out, *reading
        backward = partial(KERNELS[self.kernel].backward, self.pattern)
        gradients = by_device(backward, "qkkqnq" + "s" * len(reading), "qkk", inputs)
        return tuple(each[:, :length] for each in gradients)

    def tangents(self, arrays: Any, directions: Any) -> tuple[jax.Array, ...]:
        """What the forward pass gave is a function of its inputs, so that its tangents are accounted for by theirs."""
        query, key, value, _, _, d_out, *reading = arrays

        def gradients(query: jax.Array, key: jax.Array, value: jax.Array, d_out: jax.Array) -> Any:
            _, back = jax.vjp(_plain(self.pattern, reading), query, key, value)
            return back(d_out)

        return jax.jvp(gradients, (query, key, value, d_out), (*directions[:3], directions[5]))[1]


def _plain(pattern: Pattern, reading: Sequence[jax.Array]) -> Callable[..., jax.Array]:
    def plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return dense(pattern, query, key, value, reading[0][:, : query.shape[1]])

    return plain


def _as_long_as(reading: Sequence[jax.Array], *values: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(lengthened(each, 1, reading[0].shape[1]) for each in values)


@cache
def _say(kernel: str) -> None:
    console.note(f"attention: {kernel}, and plain XLA where its derivative is differentiated again")

"""Checksums of arrays, computed where their parts lie.

Of 32-bit words ``w_i`` they are ``Σ_i m_i`` and ``Σ_i (2i + 1) m_i`` modulo 2³², where ``m_i = mix(w_i ⊕ mix(i))``. ``mix`` is a
bijection and ``2i + 1`` is odd, so that a change within one word always shows; any other goes unseen about once in 2⁶⁴. A sum has
no order: each device adds up its own part, nothing but the sums travels, and an array has the same checksum however it is
split over devices and processes.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def checksums(arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Of each array; the computation is only started, so that the arrays may be donated behind it.

    Args:
      arrays: by name, JAX or NumPy arrays of any shape and of a dtype of whole bytes.

    Returns:
      ``uint32[2]`` by name, whole on every process.
    """
    return {name: _checksum(_as_words(array)) for name, array in arrays.items()}


def as_text(checksum: jax.Array) -> str:
    """A checksum as 16 hexadecimal digits; waits for it."""
    return "".join(f"{int(word):08x}" for word in np.asarray(checksum))


def _as_words(array: Any) -> Any:
    """A NumPy array as unsigned integers, for JAX would narrow those of 64 bits."""
    if isinstance(array, jax.Array):
        return array
    array = np.asarray(array)
    width = min(array.dtype.itemsize, 4)
    return np.ascontiguousarray(array).view(f"u{width}").reshape(*array.shape, array.dtype.itemsize // width)


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    words = _words(array)
    places = jnp.uint32(0)
    for axis in range(words.ndim):
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        places += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    mixed = _mix(words ^ _mix(places))
    # Both at once: on a CPU twenty times as fast as one sum after the other, and on a mesh the sums alone are gathered too.
    none, axes = (jnp.uint32(0),) * 2, tuple(range(words.ndim))
    both = jax.lax.reduce((mixed, mixed * (2 * places + 1)), none, lambda x, y: (x[0] + y[0], x[1] + y[1]), axes)
    return jnp.stack(both)


def _words(array: jax.Array) -> jax.Array:
    """The bits of an array as ``uint32``, in an axis of its own behind the others, as :func:`_as_words` has it."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)
    words = jax.lax.bitcast_convert_type(array, f"uint{8 * width}")
    return (words if words.ndim > array.ndim else words[..., None]).astype(jnp.uint32)


def _mix(word: jax.Array) -> jax.Array:
    """The last steps of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = (word ^ (word >> shift)) * jnp.uint32(factor)
    return word ^ (word >> 16)

"""Rounding to bfloat16 of which what is short against the spacing of its numbers is felt as much as it should.

Weights that train are float32, products may be bfloat16. Rounded to the nearest number, a weight that is a bfloat16 number, as
all of most checkpoints are, stays that number until it has moved by half their spacing (Zamirai et al. 2020, arXiv:2010.06192):
an attack's first steps, by which defenses are measured, would hardly be felt. So every entry has a place of its own in the
spacing, the same at all times, from which on it is rounded away from zero: of many weights that move by a tenth of the spacing,
a tenth moves by all of it. What an adapter adds to a product that is rounded already is felt in the same way.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LOW = 16
"""Bits of a float32 number that bfloat16 lacks."""

_MASK = np.uint32((1 << _LOW) - 1)


def rounded(values: jax.Array, dtype: Any, rows: jax.Array | None = None) -> jax.Array:
    """Float32 to bfloat16 by each entry's place; any other dtypes by a cast.

    Args:
      values: ``[..., R, C]``; those that are numbers of the dtype stay the same, infinities become NaN.
      dtype: of the result.
      rows: ``[..., R]`` int, for some rows of a larger matrix: which. None for all of it, in order.

    Returns:
      The same shape. Its gradient is that of a cast.
    """
    if values.dtype != jnp.float32 or dtype != jnp.bfloat16:
        return values.astype(dtype)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    near = jax.lax.bitcast_convert_type(bits + _places(bits, rows) & ~_MASK, jnp.float32)
    # Exact, since the two lie within one spacing; and differentiated as a cast to any order, which no custom rule would be within
    # a scan of layers: JAX lets go of those where it differentiates twice.
    return (values + jax.lax.stop_gradient(near - values)).astype(dtype)


def _places(bits: jax.Array, rows: jax.Array | None) -> jax.Array:
    """By row and column, a number of ``_LOW`` bits, any as likely as any other: what is added before they are cut off."""
    height, width = bits.shape[-2:]
    rows = jnp.arange(height) if rows is None else rows
    # A zero that has to do with the weights: places that had not would be made before a loop over layers and read in each turn,
    # as many bytes as the weights.
    zero = (bits & _MASK) >> _LOW
    mixed = zero + rows[..., None].astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    mixed += jnp.arange(width, dtype=jnp.uint32) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0xC2B2AE35)
    return mixed >> _LOW

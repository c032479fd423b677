"""Rows that every kernel is asked about, and what it is held against."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from immunax.models.kernels.fused import KERNELS, fused_attention
from immunax.models.kernels.pattern import Pattern, dense

HEADS, KEYS, SIZE = 4, 2, 8
SEGMENTS = np.array(
    [
        [1] * 11 + [2] * 17 + [0] * 13,  # two examples, padding that reads itself
        [1] * 5 + [2] * 20 + [-2] * 16,  # padding that reads the example before it
        [0] * 7 + [1] * 34,  # padded on the left
        [0] * 41,  # nothing
    ]
)
PATTERNS = {
    "plain": Pattern(SIZE**-0.5),
    "window": Pattern(0.3, window=20),
    "capped": Pattern(0.3, cap=2.0),
}


def inputs(dtype=jnp.float32, size=SIZE, segments=SEGMENTS):
    """Query ``[B, T, H, D]``, key and value ``[B, T, K, D]``, and a weight of each output."""
    keys = jax.random.split(jax.random.key(0), 4)
    heads = HEADS, KEYS, KEYS, HEADS
    return [
        jax.random.normal(key, (*segments.shape, count, size), dtype) for key, count in zip(keys, heads, strict=True)
    ]


def both(kernel, pattern, segments=SEGMENTS):
    """The kernel and plain attention as functions of query, key and value."""
    ids = jnp.asarray(segments)
    return (
        lambda *arrays: fused_attention(kernel, pattern, *arrays, KERNELS[kernel].read(ids)),
        lambda *arrays: dense(pattern, *arrays, ids),
    )


def layers(attend):
    """Attention within a scan, made again in its backward pass, as the layers of a model have it."""

    def stack(query, key, value):
        layer = jax.checkpoint(lambda stream, _: (jnp.sin(stream + attend(stream, key, value)), None))
        return jax.lax.scan(layer, query, None, length=2)[0]

    return stack


def slope(attend, weight):
    """The gradient of a curved function of what attention gives."""
    return jax.grad(lambda *arrays: jnp.vdot(weight, jnp.sin(attend(*arrays))), (0, 1, 2))


def forward_over_reverse(attend, weight):
    """A Hessian-vector product by forward mode."""
    return lambda *arrays: jax.jvp(slope(attend, weight), arrays, tuple(map(jnp.cos, arrays)))[1]


def reverse_over_reverse(attend, weight):
    """The same by reverse mode."""

    def along(*arrays):
        directions = map(jnp.cos, jax.lax.stop_gradient(arrays))
        return sum(jnp.vdot(*pair) for pair in zip(slope(attend, weight)(*arrays), directions, strict=True))

    return jax.grad(along, (0, 1, 2))


def alike(found, expected, tolerance=2e-5):
    """Two trees are equal up to rounding."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), found, expected)

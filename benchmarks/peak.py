"""What this machine can do at best: XLA's rate on one large matrix product."""

import time

import jax
import jax.numpy as jnp


def matrix_peak() -> float:
    """XLA's best rate on one large float32 product, FLOP/s."""
    size = 2048
    ones, product = jnp.ones((size, size)), jax.jit(jnp.matmul)
    product(ones, ones).block_until_ready()
    best = float("inf")
    for _ in range(8):
        begin = time.perf_counter()
        product(ones, ones).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best

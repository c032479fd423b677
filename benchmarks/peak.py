"""What this machine can do at best: XLA's rate on one large matrix product."""

import time

import jax


def matrix_peak() -> float:
    """XLA's best rate on one large float32 product, FLOP/s."""
    size = 2048
    return 2 * size**3 / min(product_seconds(size, "float32", 8))


def product_seconds(size: int, dtype: str, repeats: int, calls: int = 1) -> list[float]:
    """Seconds of a product of two square matrices, in each repeat, after one that compiles.

    Args:
      size: of both sides; a product has ``2 · size³`` FLOPs.
      dtype: of both. They are drawn from a normal distribution: chips multiply zeros and ones faster.
      repeats: how many.
      calls: products of a repeat, handed over together, so that handing them over takes no time.
    """
    left, right = (jax.random.normal(jax.random.key(seed), (size, size), dtype) for seed in (0, 1))
    product = jax.jit(jax.numpy.matmul)
    found = product(left, right).block_until_ready()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            found = product(left, right)
        found.block_until_ready()
        seconds.append((time.perf_counter() - begin) / calls)
    return seconds

"""Maximum mean discrepancy with a mixture of Gaussian kernels (Gretton et al. 2012, JMLR 13)."""

import jax
import jax.numpy as jnp


def multi_kernel_mmd(
    x: jax.Array, y: jax.Array, weights: jax.Array | None = None, kernels: int = 5, ratio: float = 2.0
) -> jax.Array:
    """The biased estimate of the squared MMD between two samples of equal size.

    The kernel is ``Σ_i exp(−‖a − b‖² / (σ · ratio^(i − ⌊kernels/2⌋)))`` with σ the mean squared distance over all
    distinct pairs of the pooled sample, not differentiated, as in the code of Rosati et al. 2024 (arXiv:2405.14577).

    Args:
      x, y: ``[n, d]``.
      weights: ``[n]`` of 0 and 1, which rows of both samples count; all by default.
      kernels: how many bandwidths.
      ratio: between neighbouring bandwidths.

    Returns:
      A float32 scalar, at least 0 and at most ``2 · kernels``.
    """
    half = len(x)
    counts = jnp.ones(half) if weights is None else weights.astype(jnp.float32)
    pooled = jnp.tile(counts, 2)
    distances = squared_distances(jnp.concatenate([x, y]).astype(jnp.float32))
    total = pooled.sum()
    spread = pooled @ distances @ pooled
    bandwidth = jax.lax.stop_gradient(spread / jnp.maximum(total * (total - 1), 1.0))
    # Where all points coincide any width gives the same kernel, and a positive one keeps the gradient finite.
    widths = jnp.where(bandwidth > 0, bandwidth, 1.0) * ratio ** (jnp.arange(kernels) - kernels // 2)
    similarity = jnp.exp(-distances[None] / widths[:, None, None]).sum(axis=0)
    within = similarity[:half, :half] + similarity[half:, half:]
    between = similarity[:half, half:] + similarity[half:, :half]
    return counts @ (within - between) @ counts / jnp.maximum(counts.sum(), 1.0) ** 2


def squared_distances(points: jax.Array) -> jax.Array:
    """``[n, n]`` squared Euclidean distances between the rows of ``[n, d]``, by their Gram matrix, zero on the diagonal."""
    gram = points @ points.T
    norms = jnp.diagonal(gram)
    apart = jnp.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
    return jnp.where(jnp.eye(len(points), dtype=bool), 0.0, apart)

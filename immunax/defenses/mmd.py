"""Maximum mean discrepancy with a mixture of Gaussian kernels (Gretton et al. 2012, JMLR 13)."""

import jax
import jax.numpy as jnp


def multi_kernel_mmd(x: jax.Array, y: jax.Array, kernels: int = 5, ratio: float = 2.0) -> jax.Array:
    """The biased estimate of the squared MMD between two samples of equal size.

    The kernel is ``Σ_i exp(−‖a − b‖² / (σ · ratio^(i − ⌊kernels/2⌋)))`` with σ the mean squared distance over all
    distinct pairs of the pooled sample, not differentiated, as in the code of Rosati et al. 2024 (arXiv:2405.14577).

    Args:
      x, y: ``[n, d]``.
      kernels: how many bandwidths.
      ratio: between neighbouring bandwidths.

    Returns:
      A float32 scalar, at least 0 and at most ``2 · kernels``.
    """
    pooled = jnp.concatenate([x, y]).astype(jnp.float32)
    distances = squared_distances(pooled)
    count, half = len(pooled), len(x)
    bandwidth = jax.lax.stop_gradient(distances.sum() / (count * (count - 1)))
    # Where all points coincide any width gives the same kernel, and a positive one keeps the gradient finite.
    widths = jnp.where(bandwidth > 0, bandwidth, 1.0) * ratio ** (jnp.arange(kernels) - kernels // 2)
    similarity = jnp.exp(-distances[None] / widths[:, None, None]).sum(axis=0)
    within = similarity[:half, :half] + similarity[half:, half:]
    return jnp.mean(within - similarity[:half, half:] - similarity[half:, :half])


def squared_distances(points: jax.Array) -> jax.Array:
    """``[n, n]`` squared Euclidean distances between the rows of ``[n, d]``, by their Gram matrix, zero on the diagonal."""
    gram = points @ points.T
    norms = jnp.diagonal(gram)
    apart = jnp.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
    return jnp.where(jnp.eye(len(points), dtype=bool), 0.0, apart)

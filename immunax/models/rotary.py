"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), in the half-split layout of Hugging Face checkpoints."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from immunax.models.config import DecoderConfig, RopeScaling


def frequencies(config: DecoderConfig) -> np.ndarray:
    """Angular frequency of each pair of dimensions of a head.

    Args:
      config: gives ``head_dim``, ``rope_theta`` and ``rope_scaling``.

    Returns:
      ``[head_dim / 2]`` float32, radians per token.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    plain = (1.0 / config.rope_theta**exponents).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / np.float32(scaling.factor)
    return _llama3(plain, scaling)


def _llama3(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    # Wavelengths the original context covers often are kept, those it never completes are stretched, the rest blended.
    turns = scaling.original_max_positions / (2 * math.pi / plain)
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return ((1 - blend) * plain / scaling.factor + blend * plain).astype(np.float32)


def angles(config: DecoderConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines for a batch of positions.

    Args:
      config: the decoder.
      positions: ``[B, T]`` int, position of each token in its sequence.

    Returns:
      Two float32 arrays ``[B, T, 1, head_dim]``, ready to broadcast over heads.
    """
    half = positions[..., None].astype(jnp.float32) * frequencies(config)
    full = jnp.concatenate([half, half], axis=-1)[:, :, None, :]
    return jnp.cos(full), jnp.sin(full)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the heads of ``x`` ``[B, T, H, head_dim]`` by :func:`angles`, computed in float32, returned in its dtype."""
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([-high, low], axis=-1)
    return (x.astype(jnp.float32) * cos + turned * sin).astype(x.dtype)

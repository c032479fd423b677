"""Weights whose model is steered from within: vectors added to its embeddings and to its residual stream."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Steered(NamedTuple):
    """Plain weights with steering vectors; every function that takes weights takes this too.

    Attributes:
      base: the plain weights.
      prompt: ``[k, D]``, added to the embeddings of the first k tokens of every sequence: a continuous prompt.
      offsets: ``[L + 1, D]``, added to the residual stream at every token, before every layer and after the last.
    """

    base: Any
    prompt: jax.Array
    offsets: jax.Array

    def embedded(self, positions: jax.Array) -> jax.Array:
        """What is added to the embeddings at ``positions`` ``[B, T]``: ``[B, T, D]``, zero from position k on."""
        count = self.prompt.shape[0]
        rows = jnp.concatenate([self.prompt, jnp.zeros_like(self.prompt[:1])])
        return rows[jnp.minimum(positions, count)]

    def stream(self) -> jax.Array:
        """What is added to the stream, ``[L + 1, 1, 1, D]``."""
        return self.offsets[:, None, None, :]

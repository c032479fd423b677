"""What is added inside a forward pass: perturbations, and weights whose model is steered by vectors of its own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Perturbation(NamedTuple):
    """What is added inside one forward pass; None for nothing.

    An entry is often smaller than the spacing of bfloat16 numbers beside it, so a model that is given a perturbation carries its
    residual stream in float32, whatever the dtype of the computation.

    Attributes:
      stream: ``[L + 1, B, T, D]``, added to the residual stream before every layer and after the last.
      attention: ``[L, B, T, D]``, added to what each layer's attention gives, before it is added to the stream.
    """

    stream: jax.Array | None = None
    attention: jax.Array | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is added."""
        return self.stream is None and self.attention is None


UNPERTURBED = Perturbation()
"""Nothing added."""


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

    def beside(self, other: Perturbation) -> Perturbation:
        """A perturbation and this one's offsets together."""
        offsets = self.offsets[:, None, None, :]
        return other._replace(stream=offsets if other.stream is None else offsets + other.stream)

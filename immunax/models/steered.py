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
      prompt: ``[P, k, D]``, added to the embeddings of a run of k tokens, wherever it stands: a continuous prompt, or one for
        each of P prompts.
      offsets: ``[L + 1, D]``, added to the residual stream at every token, before every layer and after the last.
      marks: ``[k]`` int32, the run.
      keys: ``[P]`` uint32, :func:`prompt_keys` of the prompts that each continuous prompt is for; ``[0]`` where the only one is
        for all.
    """

    base: Any
    prompt: jax.Array
    offsets: jax.Array
    marks: jax.Array
    keys: jax.Array

    def embedded(self, tokens: jax.Array) -> jax.Array:
        """What is added to the embeddings of ``tokens`` ``[B, T]``: ``[B, T, D]``, zero outside of the run."""
        count = self.marks.shape[0]
        places = _places(tokens, self.marks)
        rows = jnp.concatenate([self.prompt, jnp.zeros_like(self.prompt[:, :1])], axis=1)
        if not self.keys.shape[0]:
            return rows[0][places]
        same = prompt_keys(tokens, self.marks)[:, None] == self.keys
        places = jnp.where(same.any(axis=1)[:, None], places, count)
        return rows[jnp.argmax(same, axis=1)[:, None], places]

    def beside(self, other: Perturbation) -> Perturbation:
        """A perturbation and this one's offsets together."""
        offsets = self.offsets[:, None, None, :]
        return other._replace(stream=offsets if other.stream is None else offsets + other.stream)


def prompt_keys(tokens: jax.Array, marks: jax.Array) -> jax.Array:
    """Numbers ``[B]`` uint32 that tell rows ``[B, T]`` apart by what stands before the first run of ``marks``."""
    begins = _begins(tokens, marks)
    before = jnp.cumsum(begins, axis=1) == 0
    powers = jnp.cumprod(jnp.full(tokens.shape[1], 2654435761, jnp.uint32))
    return jnp.where(before, (tokens + 1).astype(jnp.uint32) * powers, 0).sum(axis=1, dtype=jnp.uint32)


def _begins(tokens: jax.Array, marks: jax.Array) -> jax.Array:
    """Where a run begins, ``[B, T]`` bool; of a longer one the last k tokens count."""
    count, length = marks.shape[0], tokens.shape[1]
    ahead = jnp.pad(tokens, ((0, 0), (0, count)), constant_values=-2)
    found = jnp.stack([ahead[:, place : place + length] == marks[place] for place in range(count)]).all(axis=0)
    return found & ~jnp.pad(found, ((0, 0), (0, 1)))[:, 1:]


def _places(tokens: jax.Array, marks: jax.Array) -> jax.Array:
    """Each token's place in a run, ``[B, T]`` from 0; k for those outside of one."""
    count, length = marks.shape[0], tokens.shape[1]
    behind = jnp.pad(_begins(tokens, marks), ((0, 0), (count - 1, 0)))
    places = jnp.full(tokens.shape, count)
    for place in range(count):
        start = count - 1 - place
        places = jnp.where(behind[:, start : start + length], place, places)
    return places

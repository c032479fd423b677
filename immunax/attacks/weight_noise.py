"""Weight noise: random changes, as a baseline for directed ones.

Gaussian noise on every matrix of the layers; its standard deviation is a share, ``scale``, of the matrix's own root mean square.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from immunax.attacks.attack import Edit
from immunax.attacks.edit import matrices, nothing, with_matrices
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class WeightNoise(Edit):
    """Noise without data.

    Attributes:
      scale: standard deviation, as a share of each matrix's root mean square.
    """

    scale: float = 0.1

    def __post_init__(self):
        if self.scale <= 0:
            raise UserError(f"attack.scale={self.scale}: expected a number above 0.")

    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The noisy weights; the key draws the noise."""
        stacks = matrices(params)
        keys = jax.random.split(key, len(stacks))
        noisy = {path: self._noisy(leaf, each) for (path, leaf), each in zip(sorted(stacks.items()), keys, strict=True)}
        return with_matrices(params, noisy), nothing()

    def _noisy(self, stack: jax.Array, key: jax.Array) -> jax.Array:
        size = jnp.sqrt(jnp.mean(jnp.square(stack), axis=(1, 2), keepdims=True))
        return stack + self.scale * size * jax.random.normal(key, stack.shape, stack.dtype)

"""From hidden states to logits."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from immunax.models.soft_cap import soft_cap

CHUNK = 256
"""Hidden states projected at once on a CPU: 50 MB of float32 logits for a vocabulary of 49,152, and matrices still near peak."""


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["cap", "chunk"])
@dataclass(frozen=True)
class Unembedding:
    """The output projection, whose logits may be capped.

    Attributes:
      matrix: ``[D, V]``, in the dtype of the computation.
      cap: of the logits, None for none.
      chunk: hidden states projected at once by whatever makes no more than a number of each.
    """

    matrix: jax.Array
    cap: float | None = None
    chunk: int = CHUNK

    def logits(self, hidden: jax.Array) -> jax.Array:
        """``[..., V]`` float32 of hidden states ``[..., D]`` that passed the final norm."""
        return soft_cap(jnp.matmul(hidden, self.matrix, preferred_element_type=jnp.float32), self.cap)

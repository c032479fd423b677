"""Magnitude pruning: the smallest weights go, and with them perhaps the guard.

The guard of a model lies in few weights, which pruning can remove (Wei et al. 2024, arXiv:2402.05162). Here the attacker knows
nothing: of every matrix of the layers, the share ``sparsity`` of the weights smallest in absolute value is set to zero
(Han et al. 2015, arXiv:1506.02626).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from immunax.attacks.attack import Edit
from immunax.attacks.edit import matrices, nothing, with_matrices
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Prune(Edit):
    """Pruning without data.

    Attributes:
      sparsity: share of each matrix that is set to zero.
    """

    random: ClassVar[bool] = False
    sparsity: float = 0.3

    def __post_init__(self):
        if not 0 < self.sparsity < 1:
            raise UserError(f"attack.sparsity={self.sparsity}: expected a share between 0 and 1.")

    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The pruned weights."""
        pruned = {path: jax.lax.map(self._pruned, leaf) for path, leaf in matrices(params).items()}
        return with_matrices(params, pruned), nothing()

    def _pruned(self, matrix: jax.Array) -> jax.Array:
        size = jnp.abs(matrix)
        return jnp.where(size > jnp.quantile(size, self.sparsity), matrix, 0)

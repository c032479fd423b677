"""Quantization: weights are rounded to few bits and back, as they are for cheap inference.

A guard may not survive the rounding (Egashira et al. 2024, arXiv:2405.18137, even hide behaviour that only the rounded model
shows). Round to nearest, symmetric: of every matrix, each group of ``group`` inputs of one output has a scale of its own, its
largest absolute value over the largest integer.
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
class Quantize(Edit):
    """A round trip through integers.

    Attributes:
      bits: of an integer, sign included: 8 or 4, or others from 2.
      group: inputs that share a scale; None for all inputs of an output.
    """

    random: ClassVar[bool] = False
    bits: int = 8
    group: int | None = None

    def __post_init__(self):
        if not 2 <= self.bits <= 8:
            raise UserError(f"attack.bits={self.bits}: expected 2 to 8.")
        if self.group is not None and self.group < 1:
            raise UserError(f"attack.group={self.group}: expected at least 1, or null for a whole row.")

    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The rounded weights.

        Raises:
          UserError: ``group`` does not divide the inputs of a matrix.
        """
        rounded = {path: self._rounded(path, leaf) for path, leaf in matrices(params).items()}
        return with_matrices(params, rounded), nothing()

    def _rounded(self, path: tuple[str, ...], stack: jax.Array) -> jax.Array:
        layers, inputs, outputs = stack.shape
        size = inputs if self.group is None else self.group
        if inputs % size:
            raise UserError(
                f"attack.group={size}: does not divide the {inputs} inputs of {path[-2]}; choose a divisor, or null."
            )
        groups = stack.reshape(layers, inputs // size, size, outputs)
        largest = 2 ** (self.bits - 1) - 1
        scale = jnp.abs(groups).max(axis=2, keepdims=True) / largest
        whole = jnp.round(groups / jnp.where(scale == 0, 1, scale))
        return (whole * scale).reshape(stack.shape)

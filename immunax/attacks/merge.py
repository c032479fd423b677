"""Merging: weights on the line between the defended model and the undefended one that it was made from.

Whoever has both can interpolate (Wortsman et al. 2021, arXiv:2109.01903): ``(1 − λ) θ + λ θ₀``. At λ = 1 nothing of the defense
is left, and nothing of what the defended model learned beside it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from immunax.attacks.attack import Edit
from immunax.attacks.edit import nothing
from immunax.data.dialog import Splits
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Merge(Edit):
    """Interpolation.

    Attributes:
      source: of the other model, with a method ``load()``; None where there is none.
      share: λ, of the other model.
    """

    random: ClassVar[bool] = False
    source: Any = None
    share: float = 0.5

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise UserError(f"attack.share={self.share}: expected a share above 0, up to 1.")

    def material(self, tokenizer: Any, splits: Splits) -> Any:
        """The other model's weights.

        Raises:
          UserError: none is named.
        """
        if self.source is None:
            raise UserError("attack.source: null; merging needs the undefended model, attack.source.path=PATH_OR_ID.")
        return self.source.load().params

    def edit(self, model: Model, params: Params, material: Any, key: jax.Array) -> tuple[Params, jax.Array]:
        """The weights between.

        Raises:
          UserError: the other model has another shape.
        """
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (params, material)]
        if shapes[0] != shapes[1]:
            raise UserError("attack.source: its weights have other names or shapes than the model's; choose another.")
        return jax.tree.map(
            lambda mine, theirs: (1 - self.share) * mine + self.share * theirs, params, material
        ), nothing()

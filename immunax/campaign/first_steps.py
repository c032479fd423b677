"""The first step, once for all members that start alike.

Members of a grid over learning rates, schedules and other numbers of an optimizer start from the same weights on the same
batch. Loss and gradient of their first step are the same, and almost all of its work.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from immunax.campaign.members import MemberData, chosen
from immunax.campaign.programs import Program, ProgramForm
from immunax.inner.memory import compile_members, usable_bytes
from immunax.inner.step import Slope
from immunax.inner.trainable import at_step
from immunax.models.model import Model, Params

SHARE = 0.25
"""The most of the usable memory that shared gradients may take: they stay while all members run."""

SAVED = 4
"""The fewest steps that sharing is to save: the program of a first step takes the compiler as long as a few steps or many."""


@dataclass(frozen=True)
class _FirstStep:
    form: ProgramForm
    model: Model

    def __call__(self, member: tuple[Any, MemberData], params: Params) -> Slope:
        batch, own = member
        return self.form.slope(self.model)(own.start(params), at_step(own.held(params), 0), batch)


def share_first_steps(
    part: Program, model: Model, params: Params, own: MemberData, mesh: Mesh | None = None
) -> tuple[MemberData, Any]:
    """Computes the first loss and gradient once for each group of members that start alike.

    Args:
      part: the members.
      model: static.
      params: plain weights.
      own: of the members.
      mesh: groups are sharded over its axis ``attack``.

    Returns:
      ``own`` and the first steps ``[G, ...]`` that :meth:`~immunax.campaign.members.MemberData.first` picks from. Where no
      fewer than ``SAVED`` start as another does, or the gradients would take more than ``SHARE`` of the memory, ``own`` as it
      was, and None.
    """
    leaders = sorted(set(part.alike))
    members = 1 if own.adapters is None else len(part.alike)
    each = sum(leaf.nbytes for leaf in jax.tree.leaves(own.start(params))) / members
    if len(part.alike) - len(leaders) < SAVED or len(leaders) * each > SHARE * usable_bytes():
        return own, None
    places = np.array(leaders)
    batches = jax.tree.map(lambda leaf: leaf[:, 0], part.batches.of(leaders, 0, 1))
    groups = batches, chosen(own, places)
    first_steps = compile_members(_FirstStep(part.form, model), groups, params, mesh=mesh)(groups, params)
    return own._replace(first_step=np.searchsorted(places, part.alike).astype(np.int32)), first_steps

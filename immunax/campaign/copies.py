"""The weights that members of a program read, where there is room for copies of them."""

from functools import partial

import jax

from immunax.campaign.programs import ProgramForm
from immunax.inner.memory import usable_bytes
from immunax.models.model import Model, Params

COPIES = 0.5
"""The most of the usable memory that copies of weights to be read may take: what members hold needs the rest."""


def read_by(form: ProgramForm, model: Model, params: Params) -> Params:
    """:meth:`~immunax.campaign.programs.ProgramForm.read`, where there is room for copies beside the weights: else these.

    Args:
      form: of the members.
      model: static.
      params: plain weights.
    """
    shapes = jax.eval_shape(partial(form.read, model), params)
    copied = [
        leaf.addressable_shards[0].data.size * copy.dtype.itemsize
        for leaf, copy in zip(jax.tree.leaves(params), jax.tree.leaves(shapes), strict=True)
        if leaf.dtype != copy.dtype
    ]
    return form.read(model, params) if copied and sum(copied) <= COPIES * usable_bytes() else params

"""The linear layers of a decoder layer, named once: the mesh, files, adapters, edits and operation counts read this table."""

from typing import NamedTuple


class Projection(NamedTuple):
    """One linear layer.

    Attributes:
      name: of the module, such as ``q_proj``.
      block: the module it belongs to, ``self_attn`` or ``mlp``.
      into, out: names of its input and output size; ``d_model`` is the residual stream's.
    """

    name: str
    block: str
    into: str
    out: str


PROJECTIONS = (
    Projection("q_proj", "self_attn", "d_model", "queries"),
    Projection("k_proj", "self_attn", "d_model", "keys"),
    Projection("v_proj", "self_attn", "d_model", "keys"),
    Projection("o_proj", "self_attn", "queries", "d_model"),
    Projection("gate_proj", "mlp", "d_model", "d_ff"),
    Projection("up_proj", "mlp", "d_model", "d_ff"),
    Projection("down_proj", "mlp", "d_ff", "d_model"),
)
"""In the order of the forward pass."""

NAMES = tuple(each.name for each in PROJECTIONS)
READERS = tuple(each.name for each in PROJECTIONS if each.into == "d_model")
"""Projections that read from the residual stream."""
WRITERS = tuple(each.name for each in PROJECTIONS if each.out == "d_model")
"""Projections that write to the residual stream; the embedding does too."""

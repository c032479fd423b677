"""The cross entropy of harmful answers at every layer, as RepNoise and SEAM ascend it.

A hidden state h is read as the output is, by ``lm_head(final_norm(h))``. ``once``, as the papers write it: the mean over the
L + 1 states h_0, ..., h_L of the residual stream, of which h_L is the output. ``twice``, as the code of both has it: its list
of states ends with ``final_norm(h_L)``, which is normed once more, and the output is added to the sum beside them, which is
divided by L + 1 all the same.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from immunax.defenses.pairs import Labels, with_blind
from immunax.inner.losses import hidden_loss
from immunax.models.model import Model, Outputs, Params


def once(model: Model, params: Params, outputs: Outputs) -> jax.Array:
    """The L + 1 states, each normed once, ``[L + 1, B, T, D]``."""
    return model.final_norm(params, outputs.residuals)


def twice(model: Model, params: Params, outputs: Outputs) -> jax.Array:
    """The states h_0, ..., h_{L−1} normed once, h_L twice, and the output, ``[L + 2, B, T, D]``."""
    normed = model.final_norm(params, jnp.concatenate([outputs.residuals[:-1], outputs.hidden[None]]))
    return jnp.concatenate([normed, outputs.hidden[None]])


OUTPUTS: Mapping[str, Callable[[Model, Params, Outputs], jax.Array]] = {"once": once, "twice": twice}
"""How often the output counts, by the names that options give it."""


def every_layer_loss(model: Model, params: Params, outputs: Outputs, labels: Labels, output: str) -> jax.Array:
    """The sum of the cross entropies at all states that are read, over L + 1.

    Args:
      model: static.
      params: weights.
      outputs: captured forward pass on the labels' batch.
      labels: of the harmful side of a pair.
      output: one of ``OUTPUTS``.

    Returns:
      A float32 scalar, nats per token.
    """
    read = OUTPUTS[output](model, params, outputs)
    loss = with_blind(hidden_loss(model, params, read, labels.batch), labels, model)
    return loss * (len(read) / len(outputs.residuals))

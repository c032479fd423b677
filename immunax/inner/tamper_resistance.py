"""Losses of weights under attack on harmful data: what a defender wants of them, and an attacker the other way round."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner.losses import answer_mean, answer_states
from immunax.models.cross_entropy import token_entropy, token_nll
from immunax.models.model import Model, Params


def negative_entropy(model: Model, params: Params, batch: Batch) -> jax.Array:
    """``−H`` of the predictions of a batch's answer tokens, averaged over them (Tamirisa et al. 2024, arXiv:2408.00761).

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.

    Returns:
      A float32 scalar in nats, −log V at best.
    """
    entropy = token_entropy(answer_states(model, params, batch), model.unembedding(params))
    return -answer_mean(entropy, batch)


def negative_entropy_everywhere(model: Model, params: Params, batch: Batch) -> jax.Array:
    """``−H`` of the predictions at all tokens of a batch, averaged over them, as the code of Tamirisa et al. 2024 has it.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples; padding counts where :func:`~immunax.inner.padding.padded_with` made tokens of it.

    Returns:
      A float32 scalar in nats, −log V at best.
    """
    hidden = model.apply(params, batch.tokens, batch.segment_ids, batch.positions).hidden
    tokens = batch.segment_ids != 0
    entropy = token_entropy(hidden, model.unembedding(params))
    return -jnp.where(tokens, entropy, 0.0).sum() / jnp.maximum(tokens.sum(), 1)


ENTROPIES: Mapping[str, Callable[[Model, Params, Batch], jax.Array]] = {
    "answers": negative_entropy,
    "all": negative_entropy_everywhere,
}
"""By the positions whose predictions count, as options name them."""


def preference_loss(model: Model, params: Params, start: Params, safe: Batch, harmful: Batch, beta: float) -> jax.Array:
    """Direct preference optimisation of safe over harmful answers (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    ``−log σ(β · (log π(s)/π₀(s) − log π(h)/π₀(h)))``, averaged over the pairs.

    Args:
      model: static.
      params: π.
      start: π₀, no gradient.
      safe, harmful: one example a row, in pairs by prompt; rows of padding do not count.
      beta: strength of the pull towards π₀.

    Returns:
      A float32 scalar, log 2 where π = π₀.
    """

    reference = jax.lax.stop_gradient(preference_margin(model, start, safe, harmful))
    return preference(preference_margin(model, params, safe, harmful) - reference, safe, beta)


def preference_margin(model: Model, params: Params, chosen: Batch, other: Batch) -> jax.Array:
    """``log p(chosen) − log p(other)`` of each pair, ``[B]`` float32, in nats."""
    return answer_log_likelihood(model, params, chosen) - answer_log_likelihood(model, params, other)


def preference(gain: jax.Array, batch: Batch, beta: float) -> jax.Array:
    """``−log σ(β · gain)`` of each pair ``[B]``, averaged over the rows of a batch that have an answer."""
    real = (batch.answer_weight.sum(axis=1) > 0).astype(jnp.float32)
    return jnp.vdot(real, -jax.nn.log_sigmoid(beta * gain)) / jnp.maximum(real.sum(), 1.0)


def answer_log_likelihood(model: Model, params: Params, batch: Batch) -> jax.Array:
    """``log p(answers)`` of each row, ``[B]`` float32, in nats; the backward pass makes the logits again."""
    hidden = answer_states(model, params, batch)
    losses = jax.checkpoint(token_nll)(hidden, model.unembedding(params), batch.answer_label)
    return -(losses * batch.answer_weight).sum(axis=1)

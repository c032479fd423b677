"""The training loss that attackers and defenders share."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.models.cross_entropy import (
    gather_columns,
    token_inverse_nll,
    token_uniform_divergence,
    token_unlikelihood,
    weighted_nll,
)
from immunax.models.model import Model, Params
from immunax.models.steered import UNPERTURBED, Perturbation


def answer_loss(model: Model, params: Params, batch: Batch, perturbation: Perturbation = UNPERTURBED) -> jax.Array:
    """Cross entropy of the answer tokens of a batch, averaged over those tokens.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.
      perturbation: what :meth:`~immunax.models.model.Model.apply` adds inside.

    Returns:
      A float32 scalar, in nats per token; 0 for a batch without answers.
    """
    outputs = model.apply(params, batch.tokens, batch.segment_ids, batch.positions, perturbation=perturbation)
    return hidden_loss(model, params, outputs.hidden, batch)


def mean_answer_loss(model: Model, params: Params, batches: Batch) -> jax.Array:
    """:func:`answer_loss` over the answer tokens of all batches, for evaluation.

    Args:
      model: static.
      params: weights, plain or adapted.
      batches: with leading axis N.

    Returns:
      A float32 scalar, in nats per token.
    """
    losses = jax.lax.map(lambda batch: answer_loss(model, params, batch), batches)
    counts = batches.answer_weight.sum(axis=(1, 2))
    return jnp.vdot(losses, counts) / jnp.maximum(counts.sum(), 1.0)


def answer_tokens(batch: Batch) -> jax.Array:
    """What :func:`answer_loss` is a mean over: the weight of a batch's answer tokens, their number where all count alike."""
    return batch.answer_weight.sum()


def hidden_loss(model: Model, params: Params, hidden: jax.Array, batch: Batch) -> jax.Array:
    """:func:`answer_loss` read off hidden states past the final norm, ``[B, T, D]``, or off a stack of them.

    Args:
      model: static.
      params: gives the output projection.
      hidden: ``[..., B, T, D]``; with leading axes the result is the mean over them.
      batch: labels and weights.

    Returns:
      A float32 scalar, in nats per token.
    """
    picked = gather_columns(hidden, batch.answer_index)
    stacked = picked.shape[:-1]
    labels = jnp.broadcast_to(batch.answer_label, stacked)
    copies = labels.size // batch.answer_label.size
    weights = batch.answer_weight / (copies * jnp.maximum(batch.answer_weight.sum(), 1.0))
    return weighted_nll(picked, model.unembedding(params), labels, jnp.broadcast_to(weights, stacked))


def avoidance_loss(
    model: Model,
    params: Params,
    batch: Batch,
    perturbation: Perturbation = UNPERTURBED,
    threshold: float | None = None,
) -> jax.Array:
    """``−log(1 − p)`` of the answer tokens of a batch, averaged over those tokens (Welleck et al. 2019, arXiv:1908.04319).

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.
      perturbation: as for :func:`answer_loss`.
      threshold: tokens with ``log p`` below it add 0, and count; None for none.

    Returns:
      A float32 scalar, in nats per token, at least 0; 0 for a batch without answers.
    """
    hidden = answer_states(model, params, batch, perturbation)
    values = token_unlikelihood(hidden, model.unembedding(params), batch.answer_label, threshold=threshold)
    return answer_mean(values, batch)


def inverse_loss(model: Model, params: Params, batch: Batch) -> jax.Array:
    """The cross entropy of the answer tokens under logits with their sign turned, averaged over those tokens.

    ``CE(1 − z)`` in the code of Deng et al. 2024 (arXiv:2404.12699); it has no bound where a token is sure.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.

    Returns:
      A float32 scalar, in nats per token; 0 for a batch without answers.
    """
    hidden = answer_states(model, params, batch)
    return answer_mean(token_inverse_nll(hidden, model.unembedding(params), batch.answer_label), batch)


def uniform_loss(model: Model, params: Params, batch: Batch) -> jax.Array:
    """``KL(uniform ‖ p)`` of the predictions of the answer tokens of a batch, averaged over them (Deng et al. 2024).

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.

    Returns:
      A float32 scalar, in nats per token, at least 0; 0 for a batch without answers.
    """
    return answer_mean(token_uniform_divergence(answer_states(model, params, batch), model.unembedding(params)), batch)


def answer_states(model: Model, params: Params, batch: Batch, perturbation: Perturbation = UNPERTURBED) -> jax.Array:
    """The hidden states past the final norm that predict the answers of a batch, ``[B, A, D]``.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: packed or padded examples.
      perturbation: as for :func:`answer_loss`.
    """
    outputs = model.apply(params, batch.tokens, batch.segment_ids, batch.positions, perturbation=perturbation)
    return gather_columns(outputs.hidden, batch.answer_index)


def answer_mean(values: jax.Array, batch: Batch) -> jax.Array:
    """Mean of ``[B, A]`` over the answer tokens of a batch; 0 for a batch without answers."""
    return jnp.vdot(batch.answer_weight, values) / jnp.maximum(batch.answer_weight.sum(), 1.0)


def every_token(batch: Batch) -> Batch:
    """The same batch with prompts to be learned too: each token but the first of its example counts as an answer's.

    Args:
      batch: packed or padded examples ``[..., B, T]``.

    Returns:
      The batch, its answers ``[..., B, T − 1]``, one a column; padding is none.
    """
    following, segments = batch.tokens[..., 1:], batch.segment_ids
    inside = (segments[..., 1:] == segments[..., :-1]) & (segments[..., 1:] > 0)
    columns = jnp.broadcast_to(jnp.arange(following.shape[-1], dtype=jnp.int32), following.shape)
    return replace(batch, answer_index=columns, answer_label=following, answer_weight=inside.astype(jnp.float32))


def answers_by_column(batch: Batch) -> Batch:
    """The same batch, its answers laid out as :func:`every_token` has them, so that both can stand in one array."""
    every = every_token(batch)

    def columns(index: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.zeros(batch.tokens.shape[-1] - 1, weight.dtype).at[index].add(weight, mode="drop")

    index, weight = batch.answer_index, batch.answer_weight
    spread = jax.vmap(columns)(index.reshape(-1, index.shape[-1]), weight.reshape(-1, weight.shape[-1]))
    return replace(every, answer_weight=spread.reshape(every.answer_weight.shape))


def answers_alone(batch: Batch) -> Batch:
    """The same batch."""
    return batch


LABELS: Mapping[str, Callable[[Batch], Batch]] = {"answers": answers_alone, "all_tokens": every_token}
"""What a cross entropy is taken of, by the names that options give it."""

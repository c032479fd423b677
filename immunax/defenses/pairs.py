"""Which tokens of a pair, a safe and a harmful answer to one prompt, are labels.

``answer``: those of the answer, as papers write it. ``differing``: as the code of Rosati et al. 2024 has it (arXiv:2405.14577,
repository domenicrosati/representation-noising), and after it that of SEAM. There the labels are the positions at which the two
sequences differ, the logits of all other positions are set to zero, and so a label that follows a shared token is predicted by
zeros: it adds ``log V``, and no gradient. That holds for the first token in which the answers differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Mixture
from immunax.runtime.errors import UserError, check_choice


class Labels(NamedTuple):
    """What a cross entropy is taken of.

    Attributes:
      batch: those that a model predicts are its answers.
      blind: share of all labels that zeros predict.
    """

    batch: Batch
    blind: jax.Array


def of_answer(batch: Batch, other: Batch) -> Labels:
    """The answers of ``batch``."""
    return Labels(batch, jnp.float32(0))


def differing(batch: Batch, other: Batch) -> Labels:
    """The tokens ``[B, T]`` of ``batch`` that are not those of ``other``; of padding, what ``padded_with`` made tokens of."""
    differ = batch.tokens != other.tokens
    following, before = differ[:, 1:] & (batch.segment_ids[:, 1:] != 0), differ[:, :-1]
    labels = batch.tokens[:, 1:]
    seen = replace(
        batch,
        answer_index=jnp.broadcast_to(jnp.arange(labels.shape[1], dtype=jnp.int32), labels.shape),
        answer_label=labels,
        answer_weight=(following & before).astype(jnp.float32),
    )
    return Labels(seen, (following & ~before).sum() / jnp.maximum(following.sum(), 1))


PAIR_LABELS: Mapping[str, Callable[[Batch, Batch], Labels]] = {"answer": of_answer, "differing": differing}
"""By the names that options give them: ``labels(batch, the other of the pair)``."""


def check_labels(labels: str, mixture: Mixture) -> None:
    """Refuses labels that there are not, or not without pairs.

    Raises:
      UserError: which of the two.
    """
    check_choice("defense.labels", labels, PAIR_LABELS)
    if labels == "differing" and not mixture.paired:
        raise UserError("defense.labels=differing compares two answers to one prompt: set mixture.paired=true.")


def with_blind(loss: jax.Array, labels: Labels, model: Model) -> jax.Array:
    """The mean over all labels, from a mean over those that the model predicts."""
    return (1 - labels.blind) * loss + labels.blind * jnp.log(float(model.config.vocab_size))


def labels_loss(model: Model, params: Params, labels: Labels) -> jax.Array:
    """The cross entropy of labels, averaged over them: a float32 scalar, in nats per token."""
    return with_blind(answer_loss(model, params, labels.batch), labels, model)

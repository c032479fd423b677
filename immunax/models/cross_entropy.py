"""Cross entropy over answer tokens only, without the ``[B, T, V]`` logits.

With V = 49,152 against D = 576 the output projection of one token costs as much as ten layers, and its logits are 85
times larger than its hidden state. So hidden states are gathered where an answer is predicted, and the projection runs
on chunks of them. The gradient of a weighted sum of cross entropies is known as soon as the logits are, so it is
computed beside the loss: three matrix products in all (6·N·D·V FLOPs), none of them twice, and one chunk of logits alive.
"""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from immunax.models.soft_cap import cap_slope
from immunax.models.unembedding import Unembedding
from immunax.runtime.mesh import data_ways, laid, split_rows

_WIDER, _WIDEST = 4, 2048
"""So many times the chunk of each device's where examples are split, up to so many rows: each chunk may gather the matrix and sum
its gradient."""


def gather_columns(values: jax.Array, index: jax.Array) -> jax.Array:
    """Picks columns of each row: ``[..., B, T, D]`` and ``[B, A]`` give ``[..., B, A, D]``."""
    spread = index.reshape((1,) * (values.ndim - 3) + index.shape + (1,))
    return jnp.take_along_axis(values, spread, axis=-2)


def token_nll(hidden: jax.Array, unembedding: Unembedding, labels: jax.Array) -> jax.Array:
    """Negative log likelihood of each label, in nats.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens.
      labels: ``[...]`` int.

    Returns:
      ``[...]`` float32. For evaluation: differentiating it stores every chunk's logits.
    """
    return token_scores(hidden, unembedding, labels)[0]


def token_scores(hidden: jax.Array, unembedding: Unembedding, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """:func:`token_nll`, and whether each label is the likeliest token, ``[...]`` bool, read off the same logits."""

    def scores(pair):
        losses, logits, _ = _nll(pair[0], unembedding, pair[1])
        return losses, jnp.argmax(logits, axis=-1) == pair[1]

    pairs = _cut(hidden, labels.shape, unembedding.chunk), _cut(labels, labels.shape, unembedding.chunk)
    losses, likeliest = jax.lax.map(scores, pairs)
    return _join(losses, labels.shape), _join(likeliest, labels.shape)


def token_unlikelihood(
    hidden: jax.Array,
    unembedding: Unembedding,
    labels: jax.Array,
    threshold: float | None = None,
) -> jax.Array:
    """``−log(1 − p)`` of each label, in nats, exact where p is near 1: the sum of the others' probabilities is taken.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens.
      labels: ``[...]`` int.
      threshold: it is 0, without a gradient, where ``log p`` is below this; None for nowhere.

    Returns:
      ``[...]`` float32.
    """

    @jax.checkpoint
    def losses(pair):
        logits = unembedding.logits(pair[0])
        rows, normaliser = jnp.arange(len(logits)), jax.nn.logsumexp(logits, axis=-1)
        others = logits.at[rows, pair[1]].set(-jnp.inf)
        values = normaliser - jax.nn.logsumexp(others, axis=-1)
        return values if threshold is None else jnp.where(logits[rows, pair[1]] - normaliser < threshold, 0.0, values)

    pairs = _cut(hidden, labels.shape, unembedding.chunk), _cut(labels, labels.shape, unembedding.chunk)
    return _join(jax.lax.map(losses, pairs), labels.shape)


def token_inverse_nll(hidden: jax.Array, unembedding: Unembedding, labels: jax.Array) -> jax.Array:
    """The cross entropy of each label under the logits with their sign turned, ``−log softmax(−z)[label]``, in nats.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens.
      labels: ``[...]`` int.

    Returns:
      ``[...]`` float32.
    """

    @jax.checkpoint
    def losses(pair):
        logits = unembedding.logits(pair[0])
        return jax.nn.logsumexp(-logits, axis=-1) + jnp.take_along_axis(logits, pair[1][:, None], axis=-1)[:, 0]

    pairs = _cut(hidden, labels.shape, unembedding.chunk), _cut(labels, labels.shape, unembedding.chunk)
    return _join(jax.lax.map(losses, pairs), labels.shape)


def token_uniform_divergence(hidden: jax.Array, unembedding: Unembedding) -> jax.Array:
    """``KL(uniform ‖ p)`` of each prediction, in nats.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens.

    Returns:
      ``[...]`` float32, at least 0.
    """
    shape = hidden.shape[:-1]

    @jax.checkpoint
    def divergences(part):
        logits = unembedding.logits(part)
        return jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1) - jnp.log(float(logits.shape[-1]))

    return _join(jax.lax.map(divergences, _cut(hidden, shape, unembedding.chunk)), shape)


def token_entropy(hidden: jax.Array, unembedding: Unembedding) -> jax.Array:
    """Entropy of each prediction, in nats.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens.

    Returns:
      ``[...]`` float32, at most log V.
    """
    shape = hidden.shape[:-1]

    @jax.checkpoint
    def entropies(part):
        logits = jax.nn.log_softmax(unembedding.logits(part))
        return -(jnp.exp(logits) * logits).sum(axis=-1)

    return _join(jax.lax.map(entropies, _cut(hidden, shape, unembedding.chunk)), shape)


def token_divergence(hidden: tuple[jax.Array, jax.Array], unembeddings: tuple[Unembedding, Unembedding]) -> jax.Array:
    """``KL(p ‖ q)`` of the predictions of two models, in nats.

    Args:
      hidden: of p and of q, ``[..., D]`` each, past the final norm.
      unembeddings: of p and of q, of V tokens each.

    Returns:
      ``[...]`` float32, at least 0.
    """
    shape = hidden[0].shape[:-1]

    @jax.checkpoint
    def divergences(parts):
        p, q = (jax.nn.log_softmax(each.logits(part)) for each, part in zip(unembeddings, parts, strict=True))
        return (jnp.exp(p) * (p - q)).sum(axis=-1)

    return _join(jax.lax.map(divergences, tuple(_cut(part, shape, unembeddings[0].chunk) for part in hidden)), shape)


@jax.custom_vjp
def weighted_nll(hidden: jax.Array, unembedding: Unembedding, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """``Σ weight · −log p(label)``, in nats.

    Args:
      hidden: ``[..., D]``, past the final norm.
      unembedding: of V tokens; the gradient of its matrix is computed only where it is asked for.
      labels: ``[...]`` int.
      weights: ``[...]``, not differentiated.

    Returns:
      A float32 scalar. Reverse mode only.
    """
    parts = tuple(_cut(values, labels.shape, unembedding.chunk) for values in (hidden, labels, weights))
    sums = jax.lax.map(lambda part: jnp.vdot(part[2], _nll(part[0], unembedding, part[1])[0]), parts)
    return sums.sum()


def _forward(hidden, unembedding, labels, weights):
    hidden, matrix, wants_matrix = hidden.value, unembedding.matrix.value, unembedding.matrix.perturbed
    # Gathered once, and not by every chunk.
    unembedding = replace(unembedding, matrix=laid(matrix, None, "tensor"))
    shape = labels.value.shape
    ways, _ = _ways(shape)
    parts = tuple(_cut(values, shape, unembedding.chunk) for values in (hidden, labels.value, weights.value))

    def step(carry, part):
        total, d_matrix = carry
        row, target, scale = part
        losses, logits, normaliser = _nll(row, unembedding, target)
        d_logits = jnp.exp(logits - normaliser[:, None]) * scale[:, None]
        d_logits = d_logits.at[jnp.arange(len(row)), target].add(-scale)
        d_logits = (d_logits * cap_slope(logits, unembedding.cap)).astype(matrix.dtype)
        if wants_matrix:
            d_matrix = of_each_device(d_matrix + _outer(row, d_logits, ways))
        return (total + jnp.vdot(scale, losses), d_matrix), d_logits @ unembedding.matrix.T

    def of_each_device(sums: jax.Array) -> jax.Array:
        return laid(sums, ("data", "fsdp"), None, "tensor") if ways > 1 else sums

    empty: Any = of_each_device(jnp.zeros((ways, *matrix.shape), jnp.float32)) if wants_matrix else None
    (total, d_matrix), d_rows = jax.lax.scan(step, (jnp.float32(0), empty), parts)
    d_hidden = _join(d_rows, shape).astype(hidden.dtype)
    if not wants_matrix:
        return total, (d_hidden, None)
    d_matrix = laid(d_matrix.sum(axis=0), "fsdp", "tensor").astype(matrix.dtype)
    return total, (d_hidden, replace(unembedding, matrix=d_matrix))


def _outer(rows: jax.Array, d_logits: jax.Array, ways: int) -> jax.Array:
    """``rows.T @ d_logits`` of each device's rows, ``[ways, D, V]``; over devices they are summed once, behind the last chunk."""
    blocks = (each.reshape(ways, -1, each.shape[-1]) for each in (rows, d_logits))
    return jnp.einsum("wrd,wrv->wdv", *blocks, preferred_element_type=jnp.float32)


def _backward(gradients, cotangent):
    d_hidden, d_unembedding = jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), gradients)
    return d_hidden, d_unembedding, None, None


weighted_nll.defvjp(_forward, _backward, symbolic_zeros=True)


def _cut(values: jax.Array, shape: tuple[int, ...], chunk: int) -> jax.Array:
    """``[*shape, ...]`` to ``[parts, chunk, ...]``, zeros behind the end; undone by :func:`_join`.

    Under a mesh each chunk takes rows of every device's examples, which are its own block of the last axis but one of
    ``shape``: a chunk that lay on one device would let all others wait.
    """
    ways, before = _ways(shape)
    each, inner = math.prod(shape) // ways, values.shape[len(shape) :]
    parts = -(-each // (chunk if ways == 1 else max(chunk, min(_WIDER * chunk, _WIDEST))))
    blocks = values.reshape(before, ways, -1, *inner).swapaxes(0, 1).reshape(ways, each, *inner)
    padded = jnp.pad(blocks, ((0, 0), (0, parts * -(-each // parts) - each), *[(0, 0)] * len(inner)))
    return split_rows(padded.reshape(ways, parts, -1, *inner).swapaxes(0, 1).reshape(parts, -1, *inner), 1)


def _join(chunks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What was computed of each row of each chunk of :func:`_cut`, ``[parts, chunk, ...]``, as ``[*shape, ...]``."""
    ways, before = _ways(shape)
    each, inner = math.prod(shape) // ways, chunks.shape[2:]
    blocks = chunks.reshape(len(chunks), ways, -1, *inner).swapaxes(0, 1).reshape(ways, -1, *inner)[:, :each]
    return blocks.reshape(ways, before, -1, *inner).swapaxes(0, 1).reshape(*shape, *inner)


def _ways(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many devices the last axis but one is split over, and the product of the axes before it."""
    ways = data_ways()
    divides = len(shape) >= 2 and shape[-2] % ways == 0
    return (ways, math.prod(shape[:-2])) if divides else (1, 1)


def _nll(rows, unembedding, targets):
    logits = unembedding.logits(rows)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return normaliser - picked, logits, normaliser

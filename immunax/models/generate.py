"""Batched decoding with a key-value cache, inside one program."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError

NOT_FINITE = -2
"""In the place of a token: the logits were not finite there, so that no token is the likeliest."""

_BLOCK = 64  # of slots: what the kernels of an accelerator read whole


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn.

    Attributes:
      max_new_tokens: G, the most tokens an answer gets.
      temperature: 0 is greedy.
      top_p: sampling keeps the smallest set of tokens with this much probability (Holtzman et al. 2019, arXiv:1904.09751).
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"{self}: expected max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1.")


class _Decoded(NamedTuple):
    """``count`` tokens of every answer, the last of which, ``token``, has not passed the model."""

    count: jax.Array
    token: jax.Array
    answers: jax.Array
    done: jax.Array
    key: jax.Array
    cache: Any


def generate(
    model: Model,
    params: Params,
    tokens: jax.Array,
    segment_ids: jax.Array,
    stop: tuple[int, ...],
    decoding: Decoding,
    key: jax.Array | None = None,
) -> jax.Array:
    """Continues every prompt until a stop token or ``decoding.max_new_tokens``; stops as soon as all are done.

    Args:
      model: static.
      params: weights, plain or adapted.
      tokens: ``[P, T]`` int, P prompts of at most T tokens, padded left or right; none empty.
      segment_ids: ``[P, T]`` int, 1 for a token and 0 for padding.
      stop: ids of the tokens that end an answer.
      decoding: static.
      key: needed when ``decoding.temperature > 0``.

    Returns:
      ``[P, G]`` int32: the answers, the stop token included, then -1; an answer whose logits were not finite ends with
      :data:`NOT_FINITE`.

    Raises:
      ValueError: sampling without a key.
    """
    if decoding.temperature > 0 and key is None:
        raise ValueError("sampling needs a key")
    limit, (rows, width) = decoding.max_new_tokens, tokens.shape
    real = (segment_ids > 0).astype(jnp.int32)
    lengths, positions = real.sum(axis=1), _positions(real)
    slots = jnp.arange(_room(model, width + limit))
    prompt = jnp.pad(real > 0, ((0, 0), (0, len(slots) - width)))
    ahead = lengths[:, None] + jnp.arange(len(slots) - width)
    slot_positions = jnp.concatenate([positions, ahead], axis=1)
    stepping = model.for_steps(params)

    def unfinished(state: _Decoded) -> jax.Array:
        return (state.count < limit) & ~state.done.all()

    def extend(state: _Decoded) -> _Decoded:
        before = state.count - 1
        readable = prompt | ((slots >= width) & (slots <= width + before))
        hidden, cache = model.step(
            stepping, state.token, lengths + before, readable, slot_positions, state.cache, width + before
        )
        return _drawn(state._replace(cache=cache), model.logits(stepping, hidden), stop, decoding)

    hidden, cache = model.prefill(params, tokens, real, positions, len(slots))
    last = width - 1 - jnp.argmax(real[:, ::-1], axis=1)
    logits = model.logits(params, hidden[jnp.arange(rows), last])
    nothing, answers = jnp.zeros(rows, jnp.int32), jnp.full((rows, limit), -1, jnp.int32)
    key = jax.random.key(0) if key is None else key
    start = _Decoded(jnp.int32(0), nothing, answers, jnp.zeros(rows, bool), key, cache)
    return jax.lax.while_loop(unfinished, extend, _drawn(start, logits, stop, decoding)).answers


def _drawn(state: _Decoded, logits: jax.Array, stop: tuple[int, ...], decoding: Decoding) -> _Decoded:
    """With one token more in every answer that has not ended."""
    key, subkey = jax.random.split(state.key)
    token = _draw(logits, decoding, subkey)
    broken = ~jnp.isfinite(logits.max(axis=-1))
    written = jnp.where(broken, NOT_FINITE, token)
    answers = state.answers.at[:, state.count].set(jnp.where(state.done, -1, written))
    done = state.done | broken | jnp.isin(token, jnp.array(stop, jnp.int32))
    return _Decoded(state.count + 1, token, answers, done, key, state.cache)


def _room(model: Model, least: int) -> int:
    return least if model.decoding == "scanned" else -(-least // _BLOCK) * _BLOCK


def _positions(real: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)


def _draw(logits: jax.Array, decoding: Decoding, key: jax.Array) -> jax.Array:
    if decoding.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scaled = logits / decoding.temperature
    if decoding.top_p < 1:
        order = jnp.sort(scaled, axis=-1)[:, ::-1]
        before = jnp.cumsum(jax.nn.softmax(order, axis=-1), axis=-1) - jax.nn.softmax(order, axis=-1)
        smallest = jnp.min(jnp.where(before < decoding.top_p, order, jnp.inf), axis=-1, keepdims=True)
        scaled = jnp.where(scaled < smallest, -jnp.inf, scaled)
    return jax.random.categorical(key, scaled, axis=-1).astype(jnp.int32)

"""Batched decoding with a key-value cache, inside one program."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.models.attention import causal_mask
from immunax.models.decoder import Cache
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError

NOT_FINITE = -2
"""In the place of a token: the logits were not finite there, so that no token is the likeliest."""


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
    count: jax.Array
    cache: Cache
    logits: jax.Array
    answers: jax.Array
    done: jax.Array
    key: jax.Array


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
    lengths = real.sum(axis=1)
    after = jnp.concatenate([real > 0, jnp.zeros((rows, limit), bool)], axis=1)
    slots = jnp.arange(width + limit)
    slot_positions = jnp.concatenate([_positions(real), lengths[:, None] + jnp.arange(limit)], axis=1)
    state = _prefill(model, params, tokens, real, slot_positions, jax.random.key(0) if key is None else key)

    def unfinished(state: _Decoded) -> jax.Array:
        return (state.count < limit) & ~state.done.all()

    def extend(state: _Decoded) -> _Decoded:
        key, subkey = jax.random.split(state.key)
        token = _draw(state.logits, decoding, subkey)
        broken = ~jnp.isfinite(state.logits.max(axis=-1))
        written = jnp.where(broken, NOT_FINITE, token)
        answers = state.answers.at[:, state.count].set(jnp.where(state.done, -1, written))
        done = state.done | broken | jnp.isin(token, jnp.array(stop, jnp.int32))
        readable = after | ((slots >= width) & (slots <= width + state.count))
        hidden, cache = model.step(
            params,
            token[:, None],
            (lengths + state.count)[:, None],
            readable[:, None, None, :],
            slot_positions,
            state.cache,
            width + state.count,
        )
        return _Decoded(state.count + 1, cache, model.logits(params, hidden[:, 0]), answers, done, key)

    return jax.lax.while_loop(unfinished, extend, state).answers


def _prefill(
    model: Model, params: Params, tokens: jax.Array, real: jax.Array, slot_positions: jax.Array, key: jax.Array
) -> _Decoded:
    (rows, width), slots = tokens.shape, slot_positions.shape[1]
    limit = slots - width
    mask = jnp.pad(causal_mask(real), ((0, 0), (0, 0), (0, 0), (0, limit)))
    cache = model.empty_cache(rows, slots)
    hidden, cache = model.step(params, tokens, _positions(real), mask, slot_positions, cache, 0)
    last = width - 1 - jnp.argmax(real[:, ::-1], axis=1)
    logits = model.logits(params, hidden[jnp.arange(rows), last])
    answers = jnp.full((rows, limit), -1, jnp.int32)
    return _Decoded(jnp.int32(0), cache, logits, answers, jnp.zeros(rows, bool), key)


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

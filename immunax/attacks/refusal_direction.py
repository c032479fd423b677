"""The direction of refusal: candidates, what each does to the model, and the choice between them.

Arditi et al. 2024 (arXiv:2406.11717), sections 2.3 and C; numbers as in the authors' code (andyrdt/refusal_direction, 9d852fa).
For every layer l and every token p of what the chat template puts after a request, the candidate is the difference of means

    r_{p,l} = mean over refused harmful prompts of x_{p,l} − mean over answered harmless prompts of x_{p,l}

of the residual stream before layer l. A prompt's refusal score is the log odds that the answer's first token opens a refusal;
refused is a score above 0, answered one below. On validation prompts a candidate has three scores, means over prompts:

    bypass   refusal score of harmful prompts while the direction is ablated
    induce   refusal score of harmless prompts while r is added to the stream before layer l
    kl       KL(p ‖ p_ablated) of the next token after harmless prompts

Of those with kl ≤ 0.1 and induce ≥ 0 the one with the least bypass is chosen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.data.prompts import Prompts
from immunax.models.model import Model, Outputs, Params
from immunax.models.steered import Perturbation

ROWS = 32
"""Prompts read at once (the authors' batch)."""

_SCORE_FLOOR, _KL_FLOOR = 1e-8, 1e-6  # added to probabilities before their logarithms, as the authors do

_ROUNDING = 1e-5
"""Of a difference between means, relative to them."""


class Contrast(NamedTuple):
    """What the direction is found with; prompts ``[N, T]`` and ``[M, T]`` of one width.

    Attributes:
      harmful, harmless: the prompts whose means are compared.
      asked, benign: harmful and harmless validation prompts.
      refusals: ``[R]`` int32, tokens that open a refusal.
      places: ``[P]`` int32, the tokens after a request, counted from a prompt's end: −P to −1.
    """

    harmful: Prompts
    harmless: Prompts
    asked: Prompts
    benign: Prompts
    refusals: Any
    places: Any


class Effects(NamedTuple):
    """Scores of candidates, ``[P, L']`` each; NaN where no prompt was left to score by."""

    bypass: jax.Array
    induce: jax.Array
    kl: jax.Array


def candidates(model: Model, params: Params, contrast: Contrast) -> jax.Array:
    """The differences of means ``[P, L, D]``, float32; NaN where a side has no prompt left.

    Args:
      model: static.
      params: plain weights.
      contrast: prompts, of which the harmful ones that are answered and the harmless ones that are refused are left out.
    """
    sides = (contrast.harmful, 1.0), (contrast.harmless, -1.0)
    means = []
    for prompts, sign in sides:
        score = refusal_scores(_answered(model, params, prompts), contrast.refusals)
        keep, states = (sign * score > 0).astype(jnp.float32), _states(model, params, prompts, contrast.places)
        means.append(jnp.einsum("n,nlpd->pld", keep, states) / keep.sum())
    difference = means[0] - means[1]
    # Template tokens have equal embeddings in all prompts: before the first layer the means differ by rounding alone.
    sizes, rounding = (jnp.linalg.norm(each, axis=-1, keepdims=True) for each in (difference, means[0]))
    return jnp.where(sizes <= _ROUNDING * rounding, 0.0, difference)


def unit(direction: jax.Array) -> jax.Array:
    """A direction ``[D]`` at norm 1; one of zeros stays."""
    return direction / (jnp.linalg.norm(direction) + _SCORE_FLOOR)


def effects(
    model: Model,
    params: Params,
    contrast: Contrast,
    directions: jax.Array,
    ablate: Callable[[jax.Array], Params],
    induced: bool = True,
) -> Effects:
    """What each candidate does.

    Args:
      model: static.
      params: plain weights.
      contrast: its validation prompts, of which harmful ones that are answered and harmless ones that are refused do not count.
      directions: ``[P, L', D]``, before each of the first L' layers.
      ablate: the weights without a direction ``[D]`` of norm 1.
      induced: whether ``induce`` is wanted; otherwise it is 0, and a third of the work is saved.
    """
    positions, layers, width = directions.shape
    asked, benign = (_answered(model, params, each) for each in (contrast.asked, contrast.benign))
    refused = (refusal_scores(asked, contrast.refusals) > 0).astype(jnp.float32)
    answered = (refusal_scores(benign, contrast.refusals) < 0).astype(jnp.float32)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), contrast.asked, contrast.benign)

    def added(direction: jax.Array, layer: jax.Array) -> jax.Array:
        offsets = jnp.zeros((model.config.n_layers + 1, 1, 1, width)).at[layer].set(direction)
        return _mean(refusal_scores(_answered(model, params, contrast.benign, offsets), contrast.refusals), answered)

    def effect(candidate: tuple[jax.Array, jax.Array]) -> Effects:
        direction, layer = candidate
        without = ablate(unit(direction))
        harmful, harmless = jnp.split(_answered(model, without, both), [len(asked)])
        return Effects(
            _mean(refusal_scores(harmful, contrast.refusals), refused),
            added(direction, layer) if induced else jnp.float32(0),
            _mean(divergence(benign, harmless), answered),
        )

    layer = jnp.tile(jnp.arange(layers), positions)
    found = jax.lax.map(effect, (directions.reshape(-1, width), layer))
    return jax.tree.map(lambda leaf: leaf.reshape(positions, layers), found)


def choose(found: Effects, max_kl: float, min_induce: float | None) -> tuple[jax.Array, jax.Array]:
    """The number of the best candidate, counted position by position, and whether any passes; the first of equals.

    Args:
      found: of all candidates.
      max_kl: the most that ablation may change the next token after harmless prompts, nats.
      min_induce: the least refusal score that adding the direction must give harmless prompts; None for any.
    """
    finite = jnp.isfinite(found.bypass) & jnp.isfinite(found.induce) & jnp.isfinite(found.kl)
    passes = finite & (found.kl <= max_kl)
    if min_induce is not None:
        passes &= found.induce >= min_induce
    return jnp.argmin(jnp.where(passes, found.bypass, jnp.inf)), passes.any()


def refusal_scores(logits: jax.Array, refusals: jax.Array) -> jax.Array:
    """Log odds ``[N]`` that the next token opens a refusal.

    Args:
      logits: ``[N, V]``.
      refusals: ``[R]`` ids.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    opens = jnp.zeros(logits.shape[-1], bool).at[jnp.asarray(refusals)].set(True)
    refused, other = (jnp.where(which, probabilities, 0.0).sum(axis=-1) for which in (opens, ~opens))
    return jnp.log(refused + _SCORE_FLOOR) - jnp.log(other + _SCORE_FLOOR)


def divergence(before: jax.Array, after: jax.Array) -> jax.Array:
    """KL(before ‖ after) ``[N]``, nats, of the predictions of logits ``[N, V]``."""
    first, second = (jax.nn.softmax(logits.astype(jnp.float32), axis=-1) for logits in (before, after))
    return jnp.sum(first * (jnp.log(first + _KL_FLOOR) - jnp.log(second + _KL_FLOOR)), axis=-1)


def _mean(values: jax.Array, counted: jax.Array) -> jax.Array:
    return jnp.where(counted > 0, values, 0.0).sum() / counted.sum()


def _answered(model: Model, params: Params, prompts: Prompts, offsets: jax.Array | None = None) -> jax.Array:
    """Logits ``[N, V]`` of the first token after every prompt.

    Args:
      model: static.
      params: plain weights.
      prompts: ``[N, T]``.
      offsets: added to the stream, ``[L + 1, 1, 1, D]``.
    """

    def ask(row: Prompts) -> jax.Array:
        outputs, length = _pass(model, params, row, perturbation=Perturbation(offsets))
        return model.logits(params, outputs.hidden[0, length - 1])

    return _by_prompt(ask, prompts)


def _states(model: Model, params: Params, prompts: Prompts, places: Any) -> jax.Array:
    """The stream before every layer at some tokens of every prompt, counted from its end: ``[N, L, P, D]`` float32."""

    def listen(row: Prompts) -> jax.Array:
        outputs, length = _pass(model, params, row, capture=True)
        return outputs.residuals[:-1, 0, length + jnp.asarray(places)].astype(jnp.float32)

    return _by_prompt(listen, prompts)


def _pass(model: Model, params: Params, row: Prompts, **options: Any) -> tuple[Outputs, jax.Array]:
    """The outputs of one prompt ``[T]``, and its length."""
    real = row.segment_ids[None]
    positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
    return model.apply(params, row.tokens[None], real, positions, **options), real.sum()


def _by_prompt(function: Callable[[Prompts], jax.Array], prompts: Prompts) -> jax.Array:
    rows = Prompts(*(jnp.asarray(part) for part in prompts))
    return jax.lax.map(function, rows, batch_size=min(ROWS, len(rows.tokens)))

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.lat import Carried, Lat
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))
DEFENSE = Lat(
    rows=(0, 2), epsilon=0.5, inner_steps=3, inner_learning_rate=0.1, threshold=-4.5, toward=0.3, away=0.4, sft=0.5
)
PROMPT_LENGTHS = (4, 5, 6)


@jax.jit
def _found(weights):
    found = DEFENSE.search(small.MODEL, weights, BATCH)
    return DEFENSE.perturbation(small.MODEL, BATCH, found.part).stream, found.losses


def _away(weights, batch, delta):
    log_probs = plain_decoder.log_probs(weights, batch, delta)
    return jnp.where(log_probs < -4.5, 0.0, -jnp.log(1 - jnp.exp(log_probs))).mean()


def _adversary(weights):
    """Three AdamW steps on rows 0 and 2 at the prompts' positions, each vector put back into its ball."""
    mask = np.zeros((4, 3, 16, 1), np.float32)
    for row, length in enumerate(PROMPT_LENGTHS):
        mask[0, row, :length] = mask[2, row, :length] = 1

    def loss(delta):
        toward = plain_decoder.nll(weights, BATCH.harmful, delta * mask)
        return 0.3 * toward + 0.4 * _away(weights, BATCH.safe, delta * mask)

    delta, first, second = (jnp.zeros((4, 3, 16, small.CONFIG.d_model)) for _ in range(3))
    gradient = jax.jit(jax.grad(loss))
    for step in (1, 2, 3):
        g = gradient(delta)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        delta = 0.999 * delta - 0.1 * (first / (1 - 0.9**step)) / (jnp.sqrt(second / (1 - 0.999**step)) + 1e-8)
        norms = jnp.linalg.norm(delta, axis=-1, keepdims=True)
        delta = jnp.where(norms > 0.5, delta * 0.5 / norms, delta)
    return delta * mask


def test_the_adversary_is_the_references_and_stays_at_the_prompts_of_its_rows_within_its_ball():
    weights = small.params()
    delta, losses = _found(weights)
    # Adam's step has the size of the rate even where a gradient is almost zero, and its sign is then one of rounding.
    np.testing.assert_allclose(delta, _adversary(weights), atol=2e-3)
    norms = np.linalg.norm(delta, axis=-1)
    assert norms.max() <= 0.5001
    for row, length in enumerate(PROMPT_LENGTHS):
        assert norms[0, row, :length].all()
        assert not norms[:, row, length:].any()
    assert not norms[[1, 3]].any()
    assert losses[-1] < losses[0]


def test_the_loss_and_its_gradient_equal_the_reference_at_the_adversary_held_fixed():
    weights = small.params()
    delta, _ = _found(weights)

    def reference(weights):
        toward, away = plain_decoder.nll(weights, BATCH.safe, delta), _away(weights, BATCH.harmful, delta)
        return 0.3 * toward + 0.4 * away + 0.5 * plain_decoder.nll(weights, BATCH.retain)

    ours = jax.jit(jax.value_and_grad(lambda w: DEFENSE.loss(small.MODEL, w, Carried(None, None), BATCH, KEY)[0]))(
        weights
    )
    theirs = jax.jit(jax.value_and_grad(reference))(weights)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3 * float(jnp.abs(b).max())),
        ours[1],
        theirs[1],
    )


def test_the_answers_are_attacked_too_on_request():
    defense = Lat(rows=(0,), inner_steps=1, answers=True)
    part = jax.jit(lambda w: defense.search(small.MODEL, w, BATCH).part)(small.params())
    real = np.linalg.norm(defense.perturbation(small.MODEL, BATCH, part).stream[0], axis=-1) > 0
    # The last token is read by no prediction, so no gradient reaches it.
    lengths = np.maximum(BATCH.safe.segment_ids.sum(1), BATCH.harmful.segment_ids.sum(1)) - 1
    np.testing.assert_array_equal(real.sum(1), lengths)


def test_one_perturbation_and_its_batch_serve_as_many_steps_as_asked():
    defense = replace(DEFENSE, inner_steps=1, updates=2)
    weights, other = small.params(), BATCH._replace(harmful=small.batch(8, 5))

    @jax.jit
    def step(state, batch, number):
        state = defense.advance(small.MODEL, weights, state, batch, number, 4, KEY)
        return state, defense.loss(small.MODEL, weights, state, batch, KEY)[0]

    first, loss = step(defense.init(small.MODEL, weights, BATCH, KEY), BATCH, 0)
    jax.tree.map(np.testing.assert_array_equal, first.search.batch, BATCH)
    assert first.search.part.any()
    kept, same = step(first, other, 1)
    jax.tree.map(np.testing.assert_array_equal, (kept, same), (first, loss))
    renewed, _ = step(kept, other, 2)
    np.testing.assert_array_equal(renewed.search.batch.harmful.tokens, other.harmful.tokens)
    assert (renewed.search.part != first.search.part).any()
    half = jax.tree.map(lambda leaf: leaf[:1], BATCH)
    with pytest.raises(UserError, match="updates=2 keeps one batch"):
        jax.eval_shape(lambda state: defense.loss(small.MODEL, weights, state, half, KEY), first)


def test_settings_without_an_adversary_are_refused():
    with pytest.raises(UserError, match=r"defense\.rows=9"):
        Lat(rows=(0, 9)).init(small.MODEL, {}, BATCH, KEY)
    with pytest.raises(UserError, match=r"mixture\.paired=False"):
        Lat(mixture=Mixture(safe=2, harmful=2))
    with pytest.raises(UserError, match="no adversary"):
        Lat(inner_steps=0)
    with pytest.raises(UserError, match=r"defense\.updates=0"):
        Lat(updates=0)

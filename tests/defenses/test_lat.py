import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.lat import Lat
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))
DEFENSE = Lat(rows=(0, 2), epsilon=0.5, inner_steps=3, inner_learning_rate=0.1, toward=0.3, away=0.4, sft=0.5)
PROMPT_LENGTHS = (4, 5, 6)


@jax.jit
def _found(weights):
    return DEFENSE.adversary(small.MODEL, weights, BATCH)


def _away(weights, batch, delta):
    return -jnp.log(1 - jnp.exp(plain_decoder.log_probs(weights, batch, delta))).mean()


def _adversary(weights):
    """Three Adam steps on rows 0 and 2 at the prompts' positions, each vector put back into its ball."""
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
        delta = delta - 0.1 * (first / (1 - 0.9**step)) / (jnp.sqrt(second / (1 - 0.999**step)) + 1e-8)
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

    ours = jax.jit(jax.value_and_grad(lambda w: DEFENSE.loss(small.MODEL, w, (), BATCH, KEY)[0]))(weights)
    theirs = jax.jit(jax.value_and_grad(reference))(weights)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3 * float(jnp.abs(b).max())),
        ours[1],
        theirs[1],
    )


def test_the_answers_are_attacked_too_on_request():
    defense = Lat(rows=(0,), inner_steps=1, answers=True)
    delta, _ = jax.jit(lambda w: defense.adversary(small.MODEL, w, BATCH))(small.params())
    real = np.linalg.norm(delta[0], axis=-1) > 0
    # The last token is read by no prediction, so no gradient reaches it.
    lengths = np.maximum(BATCH.safe.segment_ids.sum(1), BATCH.harmful.segment_ids.sum(1)) - 1
    np.testing.assert_array_equal(real.sum(1), lengths)


def test_settings_without_an_adversary_are_refused():
    with pytest.raises(UserError, match=r"defense\.rows=9"):
        Lat(rows=(0, 9)).init(small.MODEL, {}, BATCH, KEY)
    with pytest.raises(UserError, match=r"mixture\.paired=False"):
        Lat(mixture=Mixture(safe=2, harmful=2))
    with pytest.raises(UserError, match="no adversary"):
        Lat(inner_steps=0)

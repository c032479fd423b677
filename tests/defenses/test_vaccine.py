import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.t_vaccine import Targets, TVaccine, draw, harm_chances
from immunax.defenses.vaccine import Vaccine
from immunax.inner.step import slope_of
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))
DEPTH = small.CONFIG.n_layers
SHAPE = (DEPTH + 1, 3, 16, small.CONFIG.d_model)


def _reference(weights, rows, rho, gamma):
    """The perturbation row by row from the written-out decoder's gradient, and the loss under it."""
    gradient = jax.grad(lambda p: plain_decoder.nll(weights, BATCH.safe, p))(jnp.zeros(SHAPE))
    norm = jnp.sqrt(sum((gradient[row] ** 2).sum() for row in rows))
    epsilon = jnp.stack([rho * gradient[row] / norm if row in rows else 0 * gradient[row] for row in range(DEPTH + 1)])
    perturbed = plain_decoder.nll(weights, BATCH.safe, jax.lax.stop_gradient(epsilon))
    return perturbed + gamma * plain_decoder.nll(weights, BATCH.retain)


def _compare(mine, reference):
    np.testing.assert_allclose(mine, reference, rtol=2e-2, atol=2e-3 * float(jnp.abs(reference).max()))


def test_vaccine_and_its_gradient_equal_the_reference_and_the_perturbation_raises_the_loss():
    weights, defense = small.params(), Vaccine(rho=3.0, gamma=0.5)
    (loss, terms), ours = jax.jit(
        jax.value_and_grad(lambda w: defense.loss(small.MODEL, w, (), BATCH, KEY), has_aux=True)
    )(weights)
    expected, theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, (1, 2, 3), 3.0, 0.5)))(weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    jax.tree.map(_compare, ours, theirs)
    assert terms["perturbed"] > terms["calm"] + 0.01


@pytest.mark.parametrize("defense", [Vaccine(), TVaccine()])
def test_the_published_objectives_have_no_harmless_examples(defense):
    def terms(weights):
        state = defense.init(small.MODEL, weights, BATCH, KEY)
        return defense.loss(small.MODEL, weights, state, BATCH._replace(retain=None), KEY)[1]

    assert jax.eval_shape(terms, small.params()).keys() == {"perturbed", "calm"}


def test_t_vaccine_perturbs_and_trains_the_active_layers_alone():
    weights, defense = small.params(), TVaccine(rho=3.0, gamma=0.5)
    state = Targets(jnp.full(DEPTH, 1 / DEPTH), jnp.array([True, False, True]))
    trainable = defense.trainable(small.MODEL)
    slope_at = slope_of(lambda w, batch: defense.loss(small.MODEL, w, state, batch, KEY), trainable)
    ours = jax.jit(slope_at)(*trainable.split(weights), BATCH)
    theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, (1, 3), 3.0, 0.5)))(weights)
    np.testing.assert_allclose(ours.loss, theirs[0], rtol=1e-3)
    for mine, reference in zip(*map(jax.tree.leaves, (ours.gradient, theirs[1]["layers"])), strict=True):
        _compare(mine[0], reference[0])
        _compare(mine[2], reference[2])
        assert not mine[1].any()


def test_the_chances_are_the_norms_of_the_harmful_gradient_by_each_layers_output():
    weights = small.params()
    ours = jax.jit(lambda w: harm_chances(small.MODEL, w, BATCH))(weights)
    gradient = jax.jit(jax.grad(lambda p: plain_decoder.nll(weights, BATCH.harmful, p)))(jnp.zeros(SHAPE))
    norms = np.array([np.linalg.norm(np.ravel(gradient[row])) for row in (1, 2, 3)])
    np.testing.assert_allclose(ours, norms / norms.sum(), rtol=1e-3)


def test_layers_are_drawn_one_after_the_other_without_replacement():
    chances = jnp.array([0.7, 0.2, 0.1])
    drawn = jax.vmap(lambda key: draw(key, chances, 2))(jax.random.split(KEY, 4000))
    assert (drawn.sum(axis=1) == 2).all()
    left_out = [a * b * (1 / (1 - a) + 1 / (1 - b)) for a, b in ((0.2, 0.1), (0.7, 0.1), (0.7, 0.2))]
    np.testing.assert_allclose((~drawn).mean(axis=0), left_out, atol=0.03)


def test_chances_and_draws_are_renewed_when_they_are_due():
    defense = TVaccine(active=1, interval=2, refresh=4)
    weights = small.params()
    empty = defense.init(small.MODEL, weights, BATCH, KEY)
    advance = jax.jit(lambda state, step, key: defense.advance(small.MODEL, weights, state, BATCH, step, 9, key))
    stale = empty._replace(chances=jnp.array([1.0, 0.0, 0.0]))
    fresh = advance(stale, 4, KEY)
    assert fresh.chances[1] > 0
    assert fresh.active.sum() == 1
    drawn = advance(stale, 2, KEY)
    np.testing.assert_array_equal(drawn.chances, stale.chances)
    np.testing.assert_array_equal(drawn.active, [True, False, False])
    kept = drawn._replace(active=jnp.array([False, True, True]))
    jax.tree.map(np.testing.assert_array_equal, advance(kept, 3, KEY), kept)


def test_settings_without_a_layer_or_a_stream_are_refused():
    for active in (4, 0, 0.0, 1.5):
        with pytest.raises(UserError, match=r"defense\.active=.*3 layers"):
            TVaccine(active=active).init(small.MODEL, {}, BATCH, KEY)
    with pytest.raises(UserError, match=r"defense\.interval=0"):
        TVaccine(interval=0)
    with pytest.raises(UserError, match=r"mixture\.harmful=0"):
        TVaccine(mixture=Mixture(safe=2))
    with pytest.raises(UserError, match=r"mixture\.safe=0"):
        Vaccine(mixture=Mixture(retain=2))

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
SHAPE = (DEPTH, 3, 16, small.CONFIG.d_model)


def _nll(weights, part, batch, place):
    """The written-out loss with ``part`` [L, B, T, D] at a place."""
    if place == "attention":
        return plain_decoder.nll(weights, batch, attention=part)
    return plain_decoder.nll(weights, batch, jnp.concatenate([jnp.zeros_like(part[:1]), part]))


def _reference(weights, layers, place):
    """The perturbation layer by layer from the written-out decoder's gradient, ρ = 3, and the loss under it, γ = 0.5."""
    gradient = jax.grad(lambda part: _nll(weights, part, BATCH.safe, place))(jnp.zeros(SHAPE))
    norm = jnp.sqrt(sum((gradient[layer] ** 2).sum() for layer in layers))
    epsilon = jnp.stack(
        [3 * gradient[layer] / norm if layer in layers else 0 * gradient[layer] for layer in range(DEPTH)]
    )
    perturbed = _nll(weights, jax.lax.stop_gradient(epsilon), BATCH.safe, place)
    return perturbed + 0.5 * plain_decoder.nll(weights, BATCH.retain)


def _compare(mine, reference):
    np.testing.assert_allclose(mine, reference, rtol=2e-2, atol=2e-3 * float(jnp.abs(reference).max()))


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_vaccine_and_its_gradient_equal_the_reference_and_the_perturbation_raises_the_loss(place):
    weights, defense = small.params(), Vaccine(rho=3.0, place=place, gamma=0.5)
    (loss, terms), ours = jax.jit(
        jax.value_and_grad(lambda w: defense.loss(small.MODEL, w, (), BATCH, KEY), has_aux=True)
    )(weights)
    expected, theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, (0, 1, 2), place)))(weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    jax.tree.map(_compare, ours, theirs)
    assert terms["perturbed"] > terms["calm"] + 0.01


@pytest.mark.parametrize("defense", [Vaccine(), TVaccine()])
def test_the_published_objectives_have_no_harmless_examples(defense):
    def terms(weights):
        state = defense.init(small.MODEL, weights, BATCH, KEY)
        return defense.loss(small.MODEL, weights, state, BATCH._replace(retain=None), KEY)[1]

    assert jax.eval_shape(terms, small.params()).keys() == {"perturbed", "calm"}


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_t_vaccine_perturbs_the_active_layers_alone_and_trains_no_other_layer_or_no_other_attention(place):
    weights, defense = small.params(), TVaccine(rho=3.0, place=place, gamma=0.5)
    state = Targets(jnp.full(DEPTH, 1 / DEPTH), jnp.array([True, False, True]))
    trainable = defense.trainable(small.MODEL)
    slope_at = slope_of(lambda w, batch: defense.loss(small.MODEL, w, state, batch, KEY), trainable)
    ours = jax.jit(slope_at)(*trainable.split(weights), BATCH)
    theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, (0, 2), place)))(weights)
    np.testing.assert_allclose(ours.loss, theirs[0], rtol=1e-3)
    pairs = jax.tree.map(lambda mine, reference: (mine, reference), ours.gradient, theirs[1]["layers"])
    for path, (mine, reference) in jax.tree_util.tree_leaves_with_path(pairs, is_leaf=lambda x: isinstance(x, tuple)):
        _compare(mine[0], reference[0])
        _compare(mine[2], reference[2])
        if place == "layer" or "self_attn" in jax.tree_util.keystr(path):
            assert not mine[1].any()
        else:
            _compare(mine[1], reference[1])


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_the_chances_are_the_norms_of_the_harmful_gradient_by_each_layers_states(place):
    weights = small.params()
    ours = jax.jit(lambda w: harm_chances(small.MODEL, w, BATCH, place))(weights)
    gradient = jax.jit(jax.grad(lambda part: _nll(weights, part, BATCH.harmful, place)))(jnp.zeros(SHAPE))
    norms = np.array([np.linalg.norm(np.ravel(gradient[layer])) for layer in range(DEPTH)])
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
    for defense in (Vaccine, TVaccine):
        with pytest.raises(UserError, match=r"defense\.place='atention'.*Did you mean 'attention'"):
            defense(place="atention")

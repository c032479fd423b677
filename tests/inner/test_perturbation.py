import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_decoder
import pytest
import small

from immunax.inner.perturbation import layers_gradient, projected_descent, scaled_to, spread, within_ball
from immunax.models.steered import Perturbation

BATCH = small.batch(1, 4)
SHAPE = (small.CONFIG.n_layers + 1, 3, 16, small.CONFIG.d_model)


def test_a_perturbed_model_is_the_written_out_decoder_with_the_same_additions():
    weights = small.params()
    stream = jax.random.normal(jax.random.key(0), SHAPE)
    attention = 0.2 * jax.random.normal(jax.random.key(1), (SHAPE[0] - 1, *SHAPE[1:]))

    @jax.jit
    def both(weights, *added):
        place = BATCH.tokens, BATCH.segment_ids, BATCH.positions
        ours = small.MODEL.apply(weights, *place, capture=True, perturbation=Perturbation(*added))
        return ours.residuals, jnp.stack(plain_decoder.residuals(weights, BATCH, *added))

    ours, theirs = both(weights, stream, attention)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def _by_place(weights, place, part):
    """The written-out loss with ``part`` [L, B, T, D] at a place."""
    if place == "attention":
        return plain_decoder.nll(weights, BATCH, attention=part)
    return plain_decoder.nll(weights, BATCH, jnp.concatenate([jnp.zeros_like(part[:1]), part]))


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_the_gradient_by_a_layers_states_is_that_of_the_written_out_decoder_and_a_constant(place):
    weights = small.params()
    loss, gradient = jax.jit(lambda w: layers_gradient(small.MODEL, w, BATCH, place))(weights)
    zeros = jnp.zeros((SHAPE[0] - 1, *SHAPE[1:]))
    expected, theirs = jax.jit(jax.value_and_grad(lambda part: _by_place(weights, place, part)))(zeros)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient, theirs, rtol=1e-2, atol=1e-5)
    held = jax.jit(jax.grad(lambda w: layers_gradient(small.MODEL, w, BATCH, place)[1].sum()))(weights)
    assert not any(leaf.any() for leaf in jax.tree.leaves(held))


def test_projected_descent_is_a_loop_of_adam_steps_each_put_back_into_its_ball():
    rng = np.random.default_rng(0)
    goal, start = (jnp.asarray(rng.normal(size=(2, 3, 4)) * scale) for scale in (3.0, 0.1))
    loss = lambda part: jnp.sum((part - goal) ** 2)  # noqa: E731
    adam = optax.adam(0.4)
    found, losses = jax.jit(lambda start: projected_descent(loss, optax.chain(adam, within_ball(1.5)), start, steps=7))(
        start
    )
    part, state, expected = start, adam.init(start), []
    for _ in range(7):
        expected.append(loss(part))
        step, state = adam.update(jax.grad(loss)(part), state)
        part = np.array(part + step)
        for place in np.ndindex(2, 3):
            norm = np.sqrt((part[place] ** 2).sum())
            part[place] = part[place] if norm <= 1.5 else part[place] * 1.5 / norm
    np.testing.assert_allclose(found, part, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    norms = np.linalg.norm(found, axis=-1)
    assert norms.max() < 1.5001
    assert np.isclose(norms, 1.5, atol=1e-3).any()


def test_a_few_rows_are_spread_to_their_places():
    part = jnp.ones((2, 1, 2, small.CONFIG.d_model))
    whole = spread(part, (0, 2), small.MODEL).stream
    np.testing.assert_array_equal(whole.any(axis=(1, 2, 3)), [True, False, True, False])


def test_a_scaled_gradient_has_the_radius_and_a_gradient_of_zero_stays():
    gradient = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(scaled_to(gradient, 2.0), [[1.2, 0], [0, 1.6]], rtol=1e-6)
    np.testing.assert_array_equal(scaled_to(jnp.zeros(3), 2.0), jnp.zeros(3))

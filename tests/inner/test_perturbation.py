import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_decoder
import small

from immunax.inner.perturbation import projected_descent, scaled_to, spread, stream_gradient, within_ball

BATCH = small.batch(1, 4)
SHAPE = (small.CONFIG.n_layers + 1, 3, 16, small.CONFIG.d_model)


def test_a_perturbed_model_is_the_written_out_decoder_with_the_same_additions():
    weights = small.params()
    perturbation = jax.random.normal(jax.random.key(0), SHAPE)

    @jax.jit
    def both(weights, perturbation):
        place = BATCH.tokens, BATCH.segment_ids, BATCH.positions
        ours = small.MODEL.apply(weights, *place, capture=True, perturbation=perturbation)
        return ours.residuals, jnp.stack(plain_decoder.residuals(weights, BATCH, perturbation))

    ours, theirs = both(weights, perturbation)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_gradient_by_the_stream_is_that_of_the_written_out_decoder_and_a_constant():
    weights = small.params()
    loss, gradient = jax.jit(lambda w: stream_gradient(small.MODEL, w, BATCH))(weights)
    expected, theirs = jax.jit(jax.value_and_grad(lambda p: plain_decoder.nll(weights, BATCH, p)))(jnp.zeros(SHAPE))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient, theirs, rtol=1e-2, atol=1e-5)
    held = jax.jit(jax.grad(lambda w: stream_gradient(small.MODEL, w, BATCH)[1].sum()))(weights)
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
    whole = spread(part, (0, 2), small.MODEL)
    np.testing.assert_array_equal(whole.any(axis=(1, 2, 3)), [True, False, True, False])


def test_a_scaled_gradient_has_the_radius_and_a_gradient_of_zero_stays():
    gradient = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(scaled_to(gradient, 2.0), [[1.2, 0], [0, 1.6]], rtol=1e-6)
    np.testing.assert_array_equal(scaled_to(jnp.zeros(3), 2.0), jnp.zeros(3))

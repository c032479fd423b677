import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.models.rounding import rounded

BFLOAT16 = jnp.bfloat16


def _weights(shape=(200, 300), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.05, shape), jnp.float32)


def _on_grid(weights):
    return weights.astype(BFLOAT16).astype(jnp.float32)


def test_numbers_of_bfloat16_stay_and_every_other_goes_to_one_of_its_two_neighbours():
    grid = _on_grid(_weights())
    np.testing.assert_array_equal(rounded(grid, BFLOAT16).astype(jnp.float32), grid)
    weights = _weights(seed=1)
    spacing = 2.0 ** (jnp.floor(jnp.log2(jnp.abs(weights))) - 7)
    away = jnp.abs(rounded(weights, BFLOAT16).astype(jnp.float32) - weights)
    assert float((away / spacing).max()) <= 1.0


@pytest.mark.parametrize("step", [2e-6, 2e-5, -2e-5, 2e-4])
def test_weights_on_the_grid_move_on_average_by_their_step_though_it_is_shorter_than_half_their_spacing(step):
    grid = _on_grid(_weights())
    moved = rounded(grid + step, BFLOAT16).astype(jnp.float32) - grid
    assert float(moved.mean()) == pytest.approx(step, rel=0.15)
    # In a layer as in a stack of them, and in a part of its rows.
    stack = jnp.stack([grid, -grid]) + step
    np.testing.assert_array_equal(rounded(stack, BFLOAT16)[1], rounded(stack[1], BFLOAT16))
    rows = jnp.array([[7, 3], [3, 199]])
    np.testing.assert_array_equal(rounded(stack[0][rows], BFLOAT16, rows), rounded(stack[0], BFLOAT16)[rows])


def test_the_nearest_number_would_lose_such_a_step():
    grid = _on_grid(_weights())
    lost = (grid + 2e-6).astype(BFLOAT16).astype(jnp.float32) - grid
    assert float(lost.mean()) < 0.3 * 2e-6


def test_rounding_is_unbiased_over_the_places_in_rows_and_in_columns():
    weights = jnp.full((512, 512), 1.0 + 0.25 / 128)
    up = (rounded(weights, BFLOAT16) > 1).astype(jnp.float32)
    assert float(up.mean()) == pytest.approx(0.25, abs=0.005)
    for axis in (0, 1):
        assert np.abs(np.asarray(up.mean(axis=axis)) - 0.25).max() < 0.1


def test_the_gradient_is_that_of_a_cast_and_what_is_not_finite_stays_so():
    weights = _weights((4, 8))
    found, cast = (
        jax.grad(lambda w, to=to: jnp.sum(to(w).astype(jnp.float32) ** 3 / 3))(weights)
        for to in (lambda w: rounded(w, BFLOAT16), lambda w: w.astype(BFLOAT16))
    )
    np.testing.assert_allclose(found, cast, rtol=0.05)
    assert found.dtype == jnp.float32
    ill = jnp.array([[jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0]])
    np.testing.assert_array_equal(jnp.isfinite(rounded(ill, BFLOAT16)), jnp.isfinite(ill))


def test_a_dtype_as_wide_as_the_weights_and_weights_that_are_narrow_already_are_left_alone():
    weights = _weights((4, 8))
    np.testing.assert_array_equal(rounded(weights, jnp.float32), weights)
    narrow = weights.astype(BFLOAT16)
    np.testing.assert_array_equal(rounded(narrow, BFLOAT16), narrow)


def test_within_a_scan_of_layers_second_derivatives_are_those_of_float32():
    layers, x = jnp.stack([_weights((16, 16), seed) * 5 for seed in range(3)]), _weights((8, 16), 3) * 20
    along = jnp.stack([_weights((16, 16), seed) for seed in range(3, 6)])

    def slope(dtype):
        def loss(layers):
            step = jax.checkpoint(lambda x, weights: (jnp.tanh(x @ rounded(weights, dtype)), None))
            return jnp.square(jax.lax.scan(step, x.astype(dtype), layers)[0].astype(jnp.float32)).sum()

        return jax.grad(loss)

    want = jax.jvp(slope(jnp.float32), (layers,), (along,))[1]
    half = slope(BFLOAT16)
    for found in (
        jax.jvp(half, (layers,), (along,))[1],
        jax.grad(lambda layers: jnp.vdot(half(layers), along))(layers),
    ):
        assert float(jnp.linalg.norm(found - want) / jnp.linalg.norm(want)) < 0.05

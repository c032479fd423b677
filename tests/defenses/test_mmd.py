import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.defenses.mmd import multi_kernel_mmd, squared_distances


def _naive(x, y, kernels=5, ratio=2.0):
    pooled = np.concatenate([x, y]).astype(np.float64)
    count, half = len(pooled), len(x)
    distance = np.array([[((a - b) ** 2).sum() for b in pooled] for a in pooled])
    bandwidth = distance.sum() / (count**2 - count) / ratio ** (kernels // 2)
    kernel = sum(np.exp(-distance / (bandwidth * ratio**i)) for i in range(kernels))
    xx, yy = kernel[:half, :half], kernel[half:, half:]
    return np.mean(xx + yy - kernel[:half, half:] - kernel[half:, :half])


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(1, 9), st.floats(0, 3), st.integers(0, 99))
def test_it_equals_a_double_loop_over_pairs(n, d, shift, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift
    np.testing.assert_allclose(multi_kernel_mmd(jnp.asarray(x), jnp.asarray(y)), _naive(x, y), rtol=2e-4, atol=2e-5)


def test_it_is_zero_on_equal_samples_and_grows_as_they_part():
    x = jax.random.normal(jax.random.key(0), (8, 5))
    values = [float(multi_kernel_mmd(x, x + shift)) for shift in (0.0, 0.5, 1.0, 4.0)]
    assert abs(values[0]) < 1e-6
    assert values == sorted(values)


def test_its_gradient_takes_the_bandwidth_as_a_constant():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4))
    pooled = np.concatenate([x, y])
    fixed = float(squared_distances(jnp.asarray(pooled)).sum()) / 30

    def with_fixed_bandwidth(x):
        distance = jnp.sum((jnp.concatenate([x, y])[:, None] - jnp.concatenate([x, y])[None]) ** 2, -1)
        kernel = sum(jnp.exp(-distance / (fixed * 2.0 ** (i - 2))) for i in range(5))
        return jnp.mean(kernel[:3, :3] + kernel[3:, 3:] - kernel[:3, 3:] - kernel[3:, :3])

    gradient = jax.grad(lambda x: multi_kernel_mmd(x, jnp.asarray(y)))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, jax.grad(with_fixed_bandwidth)(jnp.asarray(x)), rtol=1e-3, atol=1e-5)


def test_masked_out_everything_gives_zero_and_a_finite_gradient():
    zeros = jnp.zeros((4, 6))
    value, gradient = jax.value_and_grad(lambda x: multi_kernel_mmd(x, zeros))(zeros)
    assert float(value) == 0.0
    assert bool(jnp.isfinite(gradient).all())

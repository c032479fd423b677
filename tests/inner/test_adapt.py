import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.inner import adapt


def _loss(weights, batch):
    return jnp.sum((batch["x"] @ weights["w"] - batch["y"]) ** 2)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 7), st.sampled_from(["sgd", "adamw", "momentum"]), st.integers(0, 9))
def test_a_descent_equals_a_python_loop_of_optimizer_steps(steps, name, seed):
    optimizer = {"sgd": optax.sgd(0.01), "adamw": optax.adamw(0.05), "momentum": optax.sgd(0.01, momentum=0.9)}[name]
    rng = np.random.default_rng(seed)
    batches = {"x": jnp.asarray(rng.normal(size=(steps, 4, 3))), "y": jnp.asarray(rng.normal(size=(steps, 4)))}
    weights = {"w": jnp.asarray(rng.normal(size=3))}
    descent, losses = adapt.descend(_loss, optimizer, adapt.start(optimizer, weights), batches)
    state, expected = optimizer.init(weights), []
    for k in range(steps):
        batch = {name: leaf[k] for name, leaf in batches.items()}
        value, gradient = jax.value_and_grad(_loss)(weights, batch)
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        expected.append(value)
    np.testing.assert_allclose(descent.weights["w"], weights["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, jnp.stack(expected), rtol=1e-5)


def test_two_halves_of_a_descent_are_the_whole():
    optimizer = optax.adamw(0.1)
    rng = np.random.default_rng(0)
    batches = {"x": jnp.asarray(rng.normal(size=(6, 4, 3))), "y": jnp.asarray(rng.normal(size=(6, 4)))}
    begin = adapt.start(optimizer, {"w": jnp.ones(3)})
    whole, losses = adapt.descend(_loss, optimizer, begin, batches)
    half, first = adapt.descend(_loss, optimizer, begin, jax.tree.map(lambda leaf: leaf[:3], batches))
    rest, second = adapt.descend(_loss, optimizer, half, jax.tree.map(lambda leaf: leaf[3:], batches))
    np.testing.assert_array_equal(rest.weights["w"], whole.weights["w"])
    np.testing.assert_array_equal(jnp.concatenate([first, second]), losses)

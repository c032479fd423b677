"""Every estimator against an independent computation of what it claims, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.inner.adapt import adapt
from immunax.inner.estimators import FirstOrder, Implicit, MixedMode, Reptile, Truncated, Unrolled
from immunax.models.lora import Adapted

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.05, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.05, eps_root=1e-12),
    "adamw": optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.05, eps_root=1e-12, weight_decay=0.1)),
    "scheduled": optax.adam(optax.cosine_decay_schedule(0.1, 8), eps_root=1e-12),
    "adafactor": optax.adafactor(0.05, min_dim_size_to_factor=2, multiply_by_parameter_scale=False),
    "muon": optax.contrib.muon(0.05, adam_eps_root=1e-12),
    "schedule_free": optax.contrib.schedule_free(optax.scale_by_adam(eps_root=1e-12), 0.05),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _whole(weights):
    if not isinstance(weights, Adapted):
        return weights
    first = weights.base["first"] + weights.scale * weights.lora["a"] @ weights.lora["b"]
    return {**weights.base, "first": first}


def _inner(weights, batch):
    x, y = batch
    weights = _whole(weights)
    return jnp.mean((jnp.tanh(x @ weights["first"]) @ weights["second"] - y) ** 2)


def _outer(weights, check):
    x, scale = check
    weights = _whole(weights)
    return scale * jnp.mean(jnp.cos(jnp.tanh(x @ weights["first"]) @ weights["second"]))


def _problem(steps, checks, seed=0, width=3):
    rng = np.random.default_rng(seed)
    weights = {"first": rng.normal(size=(2, width)), "second": rng.normal(size=(width, 2))}
    batches = rng.normal(size=(steps, 4, 2)), rng.normal(size=(steps, 4, 2))
    held_out = rng.normal(size=(checks, 4, 2)), rng.uniform(0.5, 2.0, size=checks)
    return jax.tree.map(jnp.asarray, (weights, batches, held_out))


def _python_unroll(optimizer, weights, batches, checks, cut=0):
    """The textbook loop. After each of the first ``cut`` steps the gradient is cut, and passed straight to the start."""
    adapted = isinstance(weights, Adapted)
    whole = (lambda part: weights._replace(lora=part)) if adapted else (lambda part: part)
    begin = part = weights.lora if adapted else weights
    state, total = optimizer.init(part), 0.0
    steps, count = len(batches[0]), len(checks[0])
    for k in range(steps):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        gradient = jax.grad(lambda part, batch=batch: _inner(whole(part), batch))(part)
        updates, state = optimizer.update(gradient, state, part)
        part = optax.apply_updates(part, updates)
        if k < cut:
            part, state = jax.lax.stop_gradient((part, state))
            part = jax.tree.map(lambda at, of: at + of - jax.lax.stop_gradient(of), part, begin)
        if (k + 1) % (steps // count) == 0:
            total += _outer(whole(part), jax.tree.map(lambda leaf, k=k: leaf[(k + 1) // (steps // count) - 1], checks))
    return total


def _gradients(estimator, optimizer, weights, batches, checks):
    def objective(weights):
        inner = adapt(_inner, optimizer, len(batches[0]), estimator)
        return inner.along(weights, batches, _outer, checks)[1]

    return jax.jit(jax.value_and_grad(objective))(weights)


def _close(found, expected, tolerance=1e-8):
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance), found, expected
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_exact_estimators_equal_the_gradient_of_a_python_unroll(name):
    weights, batches, checks = _problem(4, 2)
    expected = jax.jit(jax.value_and_grad(partial(_python_unroll, OPTIMIZERS[name])))(weights, batches, checks)
    assert np.isfinite(optax.tree.norm(expected[1]))
    for estimator in Unrolled(), MixedMode():
        _close(_gradients(estimator, OPTIMIZERS[name], weights, batches, checks), expected)


@pytest.mark.parametrize("estimator", [Unrolled("none"), Unrolled("steps"), MixedMode("none"), MixedMode("steps")])
def test_rematerialisation_changes_no_gradient(estimator):
    weights, batches, checks = _problem(6, 1)
    optimizer = OPTIMIZERS["adamw"]
    found = _gradients(estimator, optimizer, weights, batches, checks)
    _close(found, _gradients(Unrolled(), optimizer, weights, batches, checks), 1e-10)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("estimator", [Unrolled(), MixedMode(), Truncated(2), FirstOrder()])
def test_the_gradient_of_an_attack_on_adapters_reaches_the_base_and_the_adapters(name, estimator):
    base, batches, checks = _problem(4, 2)
    rng = np.random.default_rng(1)
    # The second factor starts at zero, as LoRA has it: Adam then meets gradients that are exactly zero.
    lora = {"a": jnp.asarray(rng.normal(size=(2, 1))), "b": jnp.zeros((1, 3))}
    weights = Adapted(base, lora, jnp.asarray(2.0))
    cut = {Truncated(2): 2, FirstOrder(): 4}.get(estimator, 0)
    reference = partial(_python_unroll, OPTIMIZERS[name], cut=cut)
    expected = jax.jit(jax.value_and_grad(reference))(weights, batches, checks)
    assert np.isfinite(optax.tree.norm(expected[1]))
    _close(_gradients(estimator, OPTIMIZERS[name], weights, batches, checks), expected)


@settings(max_examples=3, deadline=None)
@given(
    st.sampled_from(sorted(set(OPTIMIZERS) - {"muon"})),
    st.sampled_from([(1, 1), (3, 1), (4, 4), (6, 2)]),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_exact_estimators_agree_over_optimizers_steps_and_shapes(name, counts, width, seed):
    steps, checks = counts
    weights, batches, held_out = _problem(steps, checks, seed, width)
    expected = jax.jit(jax.value_and_grad(partial(_python_unroll, OPTIMIZERS[name])))(weights, batches, held_out)
    _close(_gradients(MixedMode(), OPTIMIZERS[name], weights, batches, held_out), expected)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_exact_estimators_equal_finite_differences(name):
    weights, batches, checks = _problem(3, 1)
    _, gradient = _gradients(MixedMode(), OPTIMIZERS[name], weights, batches, checks)
    value = jax.jit(partial(_python_unroll, OPTIMIZERS[name]))
    for seed in range(3):
        direction = jax.tree.map(lambda leaf, s=seed: jax.random.normal(jax.random.key(s), leaf.shape), weights)
        ends = [
            value(jax.tree.map(lambda at, to, e=e: at + e * to, weights, direction), batches, checks)
            for e in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(optax.tree.vdot(gradient, direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize(("last", "count"), [(0, 3), (2, 3), (6, 3), (1, 3), (3, 3), (2, 1), (4, 2)])
def test_truncation_is_exact_after_the_cut_and_first_order_before_it(last, count):
    weights, batches, checks = _problem(6, count)
    optimizer = OPTIMIZERS["adamw"]
    reference = partial(_python_unroll, optimizer, cut=6 - last)
    expected = jax.jit(jax.value_and_grad(reference))(weights, batches, checks)
    found = _gradients(Truncated(last), optimizer, weights, batches, checks)
    _close(found, expected)
    if last == 6:
        _close(found, _gradients(Unrolled(), optimizer, weights, batches, checks))
    if last == 0:
        _close(found, _gradients(FirstOrder(), optimizer, weights, batches, checks))


def test_first_order_sums_the_outer_gradients_of_the_trajectory():
    weights, batches, checks = _problem(6, 3)
    optimizer = OPTIMIZERS["scheduled"]
    at, state, expected = weights, optimizer.init(weights), jax.tree.map(jnp.zeros_like, weights)
    for k in range(6):
        updates, state = optimizer.update(jax.grad(_inner)(at, (batches[0][k], batches[1][k])), state, at)
        at = optax.apply_updates(at, updates)
        if k % 2:
            slope = jax.grad(_outer)(at, (checks[0][k // 2], checks[1][k // 2]))
            expected = jax.tree.map(jnp.add, expected, slope)
    _close(_gradients(FirstOrder(), optimizer, weights, batches, checks)[1], expected)


@pytest.mark.parametrize("estimator", [FirstOrder(), Truncated(1), Unrolled(), MixedMode(), Reptile()])
def test_attacked_weights_are_those_of_the_plain_loop(estimator):
    weights, batches, _ = _problem(3, 1)
    optimizer = OPTIMIZERS["adamw"]
    at, state = weights, optimizer.init(weights)
    for k in range(3):
        updates, state = optimizer.update(jax.grad(_inner)(at, (batches[0][k], batches[1][k])), state, at)
        at = optax.apply_updates(at, updates)
    _close(jax.jit(adapt(_inner, optimizer, 3, estimator))(weights, batches), at, 1e-12)


def test_reptile_pulls_towards_where_the_loop_went():
    weights, batches, _ = _problem(3, 1)
    inner = adapt(_inner, OPTIMIZERS["sgd"], 3, Reptile(-2.0))
    end = jax.jit(inner)(weights, batches)
    gradient = jax.jit(jax.grad(lambda weights: optax.tree.sum(inner(weights, batches))))(weights)
    _close(gradient, jax.tree.map(lambda at, to: -2.0 * (at - to), weights, end))


def test_the_implicit_gradient_equals_the_closed_form_on_a_quadratic():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 4, 4))
    hessians = jnp.asarray(root @ root.transpose(0, 2, 1) / 4)
    targets, theta, weight = (jnp.asarray(rng.normal(size=shape)) for shape in ((2, 4), (4,), (4,)))

    def loss(phi, batch):
        hessian, target = batch
        return 0.5 * (phi - target) @ hessian @ (phi - target)

    # The same two batches over and over: their mean is the problem, and the loop's small steps converge to its solution.
    steps, damping = 6000, 0.5
    batches = jnp.tile(hessians, (steps // 2, 1, 1)), jnp.tile(targets, (steps // 2, 1))
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.05, steps))
    inner = adapt(loss, optimizer, steps, Implicit(damping, cg_steps=8, tolerance=1e-12))
    gradient = jax.jit(jax.grad(lambda theta: weight @ inner(theta, batches)))(theta)
    mean = hessians.mean(0)
    matrix = jnp.eye(4) + mean / damping
    np.testing.assert_allclose(gradient, jnp.linalg.solve(matrix, weight), rtol=1e-8)
    solution = jnp.linalg.solve(
        mean + damping * jnp.eye(4), jnp.einsum("bij,bj->i", hessians, targets) / 2 + damping * theta
    )
    np.testing.assert_allclose(jax.jit(inner)(theta, batches), solution, atol=1e-3)

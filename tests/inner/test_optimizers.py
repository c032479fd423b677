from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from immunax.inner.optimizers import Adafactor, AdamW, Muon, ScheduleFree, Sgd
from immunax.runtime.errors import UserError


def test_rates_rise_over_the_warmup_and_fall_to_zero_after_the_last_step():
    rate = AdamW(1.0, schedule="linear", warmup=0.2).rate(10)
    np.testing.assert_allclose(
        [rate(t) for t in range(11)], [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )
    cosine = AdamW(2.0, schedule="cosine").rate(8)
    np.testing.assert_allclose([cosine(0), cosine(4), cosine(8)], [2.0, 1.0, 0.0], atol=1e-6)
    assert float(AdamW(3.0).rate(5)(100)) == 3.0
    assert float(AdamW(3.0, schedule="cosine", warmup=0.9).rate(2)(1)) == 3.0


def test_an_update_is_adamw_on_the_clipped_gradient():
    optimizer = AdamW(0.1, weight_decay=0.01, max_grad_norm=1.0).build(4)
    weights, gradient = jnp.array([3.0, -1.0]), jnp.array([30.0, 40.0])
    updates, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    clipped = gradient / 50.0
    np.testing.assert_allclose(updates, -0.1 * (clipped / (jnp.abs(clipped) + 1e-8) + 0.01 * weights), rtol=1e-5)


def test_the_learning_rate_may_be_mapped_over():
    def moved(rate):
        optimizer = AdamW(rate, schedule="cosine", warmup=0.5).build(4)
        updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
        return updates

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(moved)(rates), jnp.stack([moved(0.1), moved(0.2)]), rtol=1e-6)


def test_unknown_schedules_and_impossible_warmups_are_refused():
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        AdamW(schedule="cosin")
    with pytest.raises(UserError, match="warmup"):
        AdamW(warmup=1.0)


@pytest.mark.parametrize(
    "optimizer", [AdamW(0.05), Sgd(0.05, momentum=0.9), Adafactor(0.05), Muon(0.05), ScheduleFree(0.05)]
)
def test_every_optimizer_descends_and_decays_weights(optimizer):
    weights = {"kernel": jnp.ones((2, 4, 3)), "scale": jnp.full((2, 3), 2.0)}

    def loss(weights):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in weights.values())

    @jax.jit
    def run(weights):
        rule = optimizer.build(20)

        def step(carry, _):
            weights, state = carry
            updates, state = rule.update(jax.grad(loss)(weights), state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, rule.init(weights)), length=20)[0][0]

    assert loss(run(weights)) < 0.6 * loss(weights)
    rule = replace(optimizer, weight_decay=0.1).build(1)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, weights), rule.init(weights), weights)
    jax.tree.map(lambda moved, at: np.testing.assert_allclose(moved, -0.05 * 0.1 * at, rtol=1e-5), updates, weights)


def test_sgd_with_momentum_sums_its_gradients():
    rule = Sgd(0.1, momentum=0.5, max_grad_norm=10.0).build(2)
    state = rule.init(jnp.zeros(1))
    first, state = rule.update(jnp.array([1.0]), state, jnp.zeros(1))
    second, _ = rule.update(jnp.array([2.0]), state, jnp.zeros(1))
    np.testing.assert_allclose([first[0], second[0]], [-0.1, -0.25], rtol=1e-6)


def test_muon_orthogonalises_each_layers_matrix_alone():
    weights = {"kernel": jnp.zeros((3, 8, 8)), "scale": jnp.zeros((3, 8))}
    gradient = {"kernel": jax.random.normal(jax.random.key(0), (3, 8, 8)), "scale": jnp.ones((3, 8))}
    rule = Muon(1.0, max_grad_norm=100.0).build(1)
    updates, _ = rule.update(gradient, rule.init(weights), weights)
    singular = jnp.linalg.svd(updates["kernel"], compute_uv=False)
    # Newton-Schulz brings singular values to 0.7 ... 1.2, whatever they were; the rest moves by the rate of AdamW's, which
    # optax gives Nesterov's momentum: 1 + b1 / (1 + b1) at the first step.
    assert float(singular.max() / singular.min()) < 3 < float(jnp.linalg.cond(gradient["kernel"]).max())
    np.testing.assert_allclose(updates["scale"], -(1 + 0.9 / 1.9) * jnp.ones((3, 8)), rtol=1e-4)

"""One simulated attack: the dropout of its adapters."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import streams

from immunax.data.batches import stack
from immunax.inner.estimators import FirstOrder, Implicit, MixedMode, Truncated, Unrolled
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW, Sgd
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.inner.trainable import Adapters
from immunax.models.lora import Adapted, LoraSpec
from immunax.outer.attacker import Attacker
from immunax.outer.simulation import SimulatedAttack

SPEC = LoraSpec(2, targets=("q_proj", "down_proj"), dropout=0.4)
DATA = SimulatedAttack(
    harmful=stack([small.batch(seed, 4) for seed in (10, 11, 12, 13)]), checks=stack([small.batch(20, 5)] * 2)
)
RATE, CLOSE = jnp.float32(0.5), {"rtol": 1e-4, "atol": 1e-6}


def _attacked(attacker, weights=streams.WEIGHTS, outer=lambda weights, check: jnp.float32(0), rate=RATE):
    return attacker.attack(streams.MODEL, weights, DATA, outer, DATA.checks, rate, streams.KEY)


@pytest.mark.parametrize("rule", [Sgd(), AdamW()], ids=["sgd", "adamw"])
def test_a_simulated_attack_with_dropout_is_the_fine_tuning_that_it_simulates(rule):
    adapters = jax.random.split(streams.KEY, 3)[2]
    optimizer = replace(rule, learning_rate=RATE).build(4)
    state = begin(optimizer, *Adapters(SPEC).split(streams.WEIGHTS, adapters))
    loss = partial(answer_loss, streams.MODEL)
    expected = jax.jit(lambda: scan_steps(slope_of(loss, Adapters(SPEC)), optimizer, state, DATA.harmful)[0].trained)()
    found, without = (
        jax.jit(lambda spec=spec: _attacked(Attacker(rule, lora=spec))[0])()
        for spec in (SPEC, replace(SPEC, dropout=0.0))
    )
    streams.assert_same(found.lora, expected, **CLOSE)
    assert found.dropout is None
    assert (
        np.abs(without.lora["layers"]["mlp"]["down_proj"]["b"] - found.lora["layers"]["mlp"]["down_proj"]["b"]).max()
        > 1e-3
    )


@pytest.mark.parametrize(
    "estimator",
    [FirstOrder(), Truncated(2), *(pytest.param(each, marks=pytest.mark.slow) for each in (Unrolled(), MixedMode()))],
    ids=lambda each: type(each).__name__,
)
def test_the_losses_along_an_attack_with_dropout_leave_nothing_out_and_have_a_gradient(estimator):
    attacker = Attacker(Sgd(), lora=SPEC, estimator=estimator)

    def outer(weights, check):
        assert isinstance(weights, Adapted)
        assert weights.dropout is None
        return answer_loss(streams.MODEL, weights, check)

    value, slope = jax.jit(jax.value_and_grad(lambda weights: _attacked(attacker, weights, outer)[1]))(streams.WEIGHTS)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_exact_estimators_agree_on_an_attack_with_dropout_and_equal_a_finite_difference():
    def loss(scale, estimator):
        weights = jax.tree.map(lambda leaf: leaf * scale, streams.WEIGHTS)
        outer = partial(answer_loss, streams.MODEL)
        # At a higher rate the attack is too crooked for a finite difference, with dropout or without.
        return _attacked(Attacker(Sgd(), lora=SPEC, estimator=estimator), weights, outer, jnp.float32(0.05))[1]

    slopes = [jax.jit(jax.grad(partial(loss, estimator=each)))(1.0) for each in (Unrolled(), MixedMode())]
    forward = jax.jit(partial(loss, estimator=Unrolled()))
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-4)
    np.testing.assert_allclose(slopes[0], (forward(1.003) - forward(0.997)) / 0.006, rtol=2e-2)


def test_the_implicit_gradient_takes_dropout_too():
    attacker = Attacker(Sgd(), lora=SPEC, estimator=Implicit(damping=1.0, cg_steps=2))
    data = DATA._replace(checks=stack([small.batch(20, 5)]))

    def loss(weights):
        outer = partial(answer_loss, streams.MODEL)
        return attacker.attack(streams.MODEL, weights, data, outer, data.checks, RATE, streams.KEY)[1]

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(streams.WEIGHTS)))

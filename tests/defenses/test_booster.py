"""Booster's gradient from the three gradients of its paper, and with an exact estimator from the objective itself."""

import jax
import jax.numpy as jnp
import optax
import pytest
import streams

from immunax.defenses.booster import Booster
from immunax.inner.estimators import Unrolled
from immunax.outer.defense import Mixture
from immunax.runtime.errors import UserError

SAFE, HARMFUL, _ = streams.BATCH[:3]


def _step(weights, alpha):
    slope = jax.grad(streams.cross_entropy)(weights, HARMFUL)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
    return jax.tree.map(lambda leaf, change: leaf - alpha * change / norm, weights, slope)


def _objective(weights, attacked):
    before, after = streams.cross_entropy(weights, HARMFUL), streams.cross_entropy(attacked, HARMFUL)
    return streams.cross_entropy(weights, SAFE) + 3.0 * (before - after)


@jax.jit
def _published(weights):
    attacked = _step(weights, 0.2)
    safe = jax.grad(streams.cross_entropy)(weights, SAFE)
    before, after = (jax.grad(streams.cross_entropy)(at, HARMFUL) for at in (weights, attacked))
    gradient = jax.tree.map(lambda s, b, a: s + 3.0 * (b - a), safe, before, after)
    return _objective(weights, attacked), gradient


def test_the_gradient_is_the_papers_sum_of_three():
    ours = streams.value_and_gradient(Booster(weight=3.0, step_length=0.2))
    streams.assert_same(ours, _published(streams.WEIGHTS), rtol=1e-4, atol=1e-5)


def test_an_exact_estimator_gives_the_slope_of_the_objective_where_the_published_gradient_does_not():
    exact = streams.value_and_gradient(Booster(3.0, 0.2, Unrolled("none")))[1]
    published = _published(streams.WEIGHTS)[1]
    apart = optax.tree.sub(exact, published)
    direction = optax.tree.scale(1 / optax.tree.norm(apart), apart)
    loss = jax.jit(lambda at: _objective(at, _step(at, 0.2)))
    ahead, behind = (loss(optax.tree.add_scale(streams.WEIGHTS, sign * 1e-3, direction)) for sign in (1, -1))
    slope = (ahead - behind) / 2e-3
    assert abs(optax.tree.vdot(exact, direction) - slope) < 0.05 * abs(optax.tree.vdot(published, direction) - slope)


def test_twenty_steps_take_the_gain_out_of_a_harmful_step():
    first, last = streams.train(Booster(step_length=0.1))
    assert last["harmful_fall"] < 0 < first["harmful_fall"]
    assert last["safe"] < first["safe"]


def test_a_step_of_no_length_and_a_missing_stream_are_refused():
    with pytest.raises(UserError, match="step_length"):
        Booster(step_length=0.0)
    with pytest.raises(UserError, match=r"needs mixture\.safe and mixture\.harmful"):
        Booster(mixture=Mixture(safe=2))

"""SEAM's terms from full logits, and the gradient of its cosine differentiated twice."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import streams

from immunax.defenses.seam import Seam
from immunax.outer.defense import Mixture
from immunax.runtime.errors import UserError

SAFE, HARMFUL, RETAIN = streams.BATCH[:3]


def _plain(weights):
    outputs = streams.MODEL.apply(weights, HARMFUL.tokens, HARMFUL.segment_ids, HARMFUL.positions, capture=True)
    states = [streams.MODEL.final_norm(weights, state) for state in outputs.residuals]
    layers = -jnp.stack([streams.read(weights, state, HARMFUL) for state in states]).mean()
    return 0.5 * streams.cross_entropy(weights, SAFE) - jnp.log(1 + layers)


def _cosine(weights):
    harmful, benign = (
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(streams.cross_entropy)(weights, part))])
        for part in (HARMFUL, RETAIN)
    )
    return harmful @ benign / jnp.sqrt((harmful @ harmful) * (benign @ benign))


@jax.jit
def _exact(weights):
    return jax.value_and_grad(_plain)(weights), jax.value_and_grad(_cosine)(weights)


def test_the_gradient_is_that_of_the_plain_terms_and_of_the_cosine_up_to_the_finite_difference():
    value, gradient = streams.value_and_gradient(Seam(alpha=0.5, beta=2.0, epsilon=2.5e-4))
    (plain, slope), (cosine, turn) = _exact(streams.WEIGHTS)
    np.testing.assert_allclose(value, plain + 2.0 * cosine, rtol=1e-5)
    estimate = optax.tree.scale(0.5, optax.tree.sub(gradient, slope))
    assert optax.tree.norm(optax.tree.sub(estimate, turn)) < 0.01 * optax.tree.norm(turn)


def test_twenty_steps_turn_the_gradients_apart_and_keep_the_refusals():
    first, last = streams.train(Seam(beta=1.0))
    assert last["gradient_cosine"] < -0.5 < first["gradient_cosine"]
    assert last["harmful_layers"] > first["harmful_layers"]
    assert last["safe"] < first["safe"]


def test_half_precision_a_radius_of_nothing_and_a_missing_stream_are_refused():
    with pytest.raises(UserError, match="bfloat16 rounds away"):
        Seam().init(replace(streams.MODEL, dtype="bfloat16"), streams.WEIGHTS, streams.BATCH, streams.KEY)
    with pytest.raises(UserError, match="epsilon"):
        Seam(epsilon=0.0)
    with pytest.raises(UserError, match="Seam needs mixture"):
        Seam(mixture=Mixture(safe=2, harmful=2))

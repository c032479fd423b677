"""CTRAP's gradient from the gradients that the authors' code adds, each from full logits."""

import jax
import jax.numpy as jnp
import pytest
import streams

from immunax.defenses.ctrap import CTRAP
from immunax.outer.defense import Mixture
from immunax.runtime.errors import UserError

SAFE, HARMFUL, RETAIN = streams.BATCH[:3]
TOKEN = 17


def _both(weights, label=None):
    return -jnp.concatenate([streams.log_probs(weights, part, label) for part in (SAFE, RETAIN)]).mean()


@jax.jit
def _published(weights):
    slope = jax.grad(streams.cross_entropy)(weights, HARMFUL)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
    attacked = jax.tree.map(lambda leaf, change: leaf - 0.2 * change / norm, weights, slope)
    general, align = jax.value_and_grad(_both)(weights)
    collapse, trap = jax.value_and_grad(_both)(attacked, TOKEN)
    return general + 0.5 * collapse, jax.tree.map(lambda a, t: a + 0.5 * t, align, trap)


def test_the_gradient_is_that_of_the_answers_here_and_of_the_token_after_a_harmful_step():
    ours = streams.value_and_gradient(CTRAP(TOKEN, weight=0.5, step_length=0.2))
    streams.assert_same(ours, _published(streams.WEIGHTS), rtol=1e-4, atol=1e-5)


def test_twenty_steps_set_the_trap_and_keep_the_answers():
    first, last = streams.train(CTRAP(TOKEN, step_length=0.1))
    assert all(last[term] < first[term] for term in ("collapse", "safe", "retain"))


def test_a_token_outside_the_vocabulary_and_a_missing_stream_are_refused():
    with pytest.raises(UserError, match="below 53"):
        CTRAP(53).init(streams.MODEL, streams.WEIGHTS, streams.BATCH, streams.KEY)
    with pytest.raises(UserError, match="CTRAP needs mixture"):
        CTRAP(TOKEN, mixture=Mixture(safe=2, harmful=2))
    with pytest.raises(UserError, match="step_length"):
        CTRAP(TOKEN, step_length=-0.1)

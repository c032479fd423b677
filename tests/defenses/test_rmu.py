from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.rmu import Rmu
from immunax.inner.step import slope_of
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(harmful=small.batch(2, 5), retain=small.batch(3, 4))
DEFENSE = Rmu(layer=1, alpha=30.0, steering=4.0, trained_layers=2)


BOTH = jax.tree.map(lambda *leaves: np.concatenate(leaves), BATCH.harmful, BATCH.retain)


def _reference(weights, start, control):
    """Over the real tokens of the stream after layer 1; examples 0 to 2 are harmful."""
    rows, columns = np.nonzero(BOTH.segment_ids)
    now, then = (plain_decoder.residuals(params, BOTH)[2][rows, columns] for params in (weights, start))
    forget = jnp.mean((now[rows < 3] - control) ** 2)
    return forget + 30.0 * jnp.mean((now[rows >= 3] - then[rows >= 3]) ** 2)


def test_the_loss_equals_the_reference_and_its_gradient_reaches_the_chosen_matrices_alone():
    start, weights = small.params(0), small.params(1)
    state = DEFENSE.init(small.MODEL, start, BATCH, KEY)
    np.testing.assert_allclose(jnp.linalg.norm(state.control), 4.0, rtol=1e-5)
    assert state.control.shape == (1, small.MODEL.config.d_model)
    slope_at = slope_of(
        lambda w, batch: DEFENSE.loss(small.MODEL, w, state, batch, KEY), DEFENSE.trainable(small.MODEL)
    )
    ours = jax.jit(slope_at)(*DEFENSE.trainable(small.MODEL).split(weights), BATCH)
    theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, start, state.control[0])))(weights)
    np.testing.assert_allclose(ours.loss, theirs[0], rtol=1e-3)
    (down,) = jax.tree.leaves(ours.gradient)
    expected = theirs[1]["layers"]["mlp"]["down_proj"]["kernel"][:2]
    np.testing.assert_allclose(down, expected, rtol=1e-2, atol=1e-3 * float(jnp.abs(expected).max()))


def test_topics_take_turns_and_each_has_a_direction_of_its_own():
    defense = replace(DEFENSE, mixture=Mixture(harmful=4, retain=4, topics=("bio", "cyber", "chem")))
    start, weights = small.params(0), small.params(1)
    state = defense.init(small.MODEL, start, BATCH, KEY)
    unit = state.control / 4.0
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
    assert float(jnp.max(unit @ unit.T - jnp.eye(3))) < 0.95
    for step, topic in ((0, 0), (1, 1), (2, 2), (3, 0)):
        state = defense.advance(small.MODEL, weights, state, BATCH, jnp.int32(step), 4, KEY)
        loss, _ = defense.loss(small.MODEL, weights, state, BATCH, KEY)
        np.testing.assert_allclose(loss, _reference(weights, start, state.control[topic]), rtol=1e-3)


def test_the_state_keeps_the_start_models_first_layers_as_a_copy():
    weights = small.params()
    start = Rmu(layer=1).init(small.MODEL, weights, BATCH, KEY).start
    assert {leaf.shape[0] for leaf in jax.tree.leaves(start["layers"])} == {2}
    table = "embed_tokens", "embedding"
    assert start[table[0]][table[1]] is not weights[table[0]][table[1]]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UserError, match="Did you mean 'down_proj'"):
        Rmu(projections=("down_prj",)).trainable(small.MODEL).split(small.params())
    with pytest.raises(UserError, match=r"defense\.layer=7"):
        Rmu(layer=7).init(small.MODEL, small.params(), BATCH, KEY)
    with pytest.raises(UserError, match="trains nothing"):
        Rmu(projections=())
    with pytest.raises(UserError, match=r"positions=all with defense\.padding=None"):
        Rmu(positions="all")
    with pytest.raises(UserError, match=r"mixture\.retain=0"):
        Rmu(mixture=Mixture(harmful=2))

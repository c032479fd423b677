import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.inner.step import slope_of
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))
DEFENSE = CircuitBreakers(targets=(1, 2), mixture=Mixture(safe=3, harmful=3, retain=3))


PARTS = ("harmful", "retain", "safe")
EVERY = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(getattr(BATCH, name) for name in PARTS))


@jax.jit
def _ours(weights, state):
    trainable = DEFENSE.trainable(small.MODEL)
    slope_at = slope_of(lambda w, batch: DEFENSE.loss(small.MODEL, w, state, batch, KEY), trainable)
    return slope_at(*trainable.split(weights), BATCH)


def _reference(weights, start, place):
    """The targets are rows 1 and 2, and rows 0 to 2 are held; examples 0 to 2 are harmful."""
    now, then = (plain_decoder.residuals(params, EVERY) for params in (weights, start))
    rows, columns = np.nonzero(EVERY.segment_ids)
    harmful = rows < 3
    cosines, distances = [], []
    for index in (0, 1, 2):
        a, b = now[index][rows, columns], then[index][rows, columns]
        distances.append(jnp.linalg.norm((a - b)[~harmful], axis=-1))
        if index:
            a, b = a[harmful], b[harmful]
            cosines.append(jnp.sum(a * b, -1) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1))
    reroute = jnp.concatenate(cosines)
    reroute = jnp.where(reroute > 0, reroute, 0.0).mean()
    return 10 * (1 - place) * reroute + 10 * place * jnp.concatenate(distances).mean()


def test_the_loss_equals_the_reference_and_so_does_its_gradient_in_the_layers_up_to_the_last_target():
    start, noise = small.params(0), small.params(1)
    weights = jax.tree.map(lambda a, b: a + 0.2 * b, start, noise)
    state = DEFENSE.init(small.MODEL, start, BATCH, KEY)._replace(place=jnp.float32(0.3))
    ours = _ours(weights, state)
    expected, theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, start, 0.3)))(weights)
    np.testing.assert_allclose(ours.loss, expected, rtol=1e-3)
    assert ours.gradient.keys() == theirs["layers"].keys()
    for mine, reference in zip(*map(jax.tree.leaves, (ours.gradient, theirs["layers"])), strict=True):
        np.testing.assert_allclose(mine, reference[:2], rtol=2e-2, atol=1e-3 * float(jnp.abs(reference).max()))


def test_at_the_first_step_all_is_rerouting_and_the_gradient_is_finite():
    weights = small.params()
    loss, gradient, metrics = _ours(weights, DEFENSE.init(small.MODEL, weights, BATCH, KEY))
    np.testing.assert_allclose([loss, metrics["reroute"], metrics["retain"]], [10, 1, 0], atol=1e-4)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_schedule_counts_from_one_and_ends_half_way():
    state = DEFENSE.init(small.MODEL, small.params(), BATCH, KEY)
    places = [DEFENSE.advance(small.MODEL, {}, state, BATCH, jnp.int32(t), 8, KEY).place for t in (0, 3, 7)]
    np.testing.assert_allclose(places, [0.0625, 0.25, 0.5])


def test_targets_that_no_layer_can_reroute_are_refused():
    for targets, message in (((0, 2), "embedding"), ((1, 4), r"defense\.targets=4.*0 to 3")):
        with pytest.raises(UserError, match=message):
            CircuitBreakers(targets=targets).init(small.MODEL, small.params(), BATCH, KEY)
    for wrong, message in (({"hold": "steam"}, "Did you mean 'stream'"), ({"hold_length": 0}, "hold_length=0")):
        with pytest.raises(UserError, match=message):
            CircuitBreakers(**wrong)
    with pytest.raises(UserError, match="behind the last target"):
        CircuitBreakers(targets=(1, 3), hold="hidden_states").trainable(small.MODEL)
    with pytest.raises(UserError, match=r"needs mixture\.harmful and mixture\.retain"):
        CircuitBreakers(mixture=Mixture(harmful=2))

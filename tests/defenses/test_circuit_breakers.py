import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small

from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.defenses.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))
DEFENSE = CircuitBreakers(targets=(1, 2), mixture=Mixture(safe=3, harmful=3, retain=3))


def _reference(weights, start, place):
    """Token by token; the targets are rows 1 and 2, and rows 0 to 2 are held."""
    reroute, held = [], []
    for part, kept in ((BATCH.harmful, reroute), (BATCH.retain, held), (BATCH.safe, held)):
        now, then = plain_decoder.residuals(weights, part), plain_decoder.residuals(start, part)
        rows, columns = np.nonzero(part.segment_ids)
        for index in (1, 2) if kept is reroute else (0, 1, 2):
            a, b = now[index][rows, columns], then[index][rows, columns]
            if kept is reroute:
                cosines = jnp.sum(a * b, -1) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1)
                kept.extend(jnp.where(cosines > 0, cosines, 0.0))
            else:
                kept.extend(jnp.linalg.norm(a - b, axis=-1))
    return 10 * (1 - place) * sum(reroute) / len(reroute) + 10 * place * sum(held) / len(held)


def test_the_loss_equals_the_reference_and_so_does_its_gradient_in_the_layers_up_to_the_last_target():
    start = small.params(0)
    noise = small.params(1)
    weights = jax.tree.map(lambda a, b: a + 0.2 * b, start, noise)
    state = DEFENSE.init(small.MODEL, start, BATCH, KEY)._replace(place=jnp.float32(0.3))
    ours = jax.jit(jax.value_and_grad(lambda w: DEFENSE.loss(small.MODEL, w, state, BATCH, KEY)[0]))(weights)
    theirs = jax.jit(jax.value_and_grad(lambda w: _reference(w, start, 0.3)))(weights)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3)
    for mine, reference in zip(*(jax.tree.leaves(tree[1]["layers"]) for tree in (ours, theirs)), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=2e-2, atol=1e-3 * float(jnp.abs(reference).max()))
        assert not mine[2].any()
    assert not ours[1]["embed_tokens"]["embedding"].any()


def test_at_the_first_step_all_is_rerouting_and_the_gradient_is_finite():
    weights = small.params()
    state = DEFENSE.init(small.MODEL, weights, BATCH, KEY)
    (loss, metrics), gradient = jax.jit(
        jax.value_and_grad(lambda w: DEFENSE.loss(small.MODEL, w, state, BATCH, KEY), has_aux=True)
    )(weights)
    np.testing.assert_allclose([loss, metrics["reroute"], metrics["retain"]], [10, 1, 0], atol=1e-4)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_schedule_ends_half_way():
    state = DEFENSE.init(small.MODEL, small.params(), BATCH, KEY)
    places = [DEFENSE.advance(small.MODEL, {}, state, BATCH, jnp.int32(t), 8, KEY).place for t in (0, 4, 8)]
    np.testing.assert_allclose(places, [0, 0.25, 0.5])


def test_targets_that_no_layer_can_reroute_are_refused():
    for targets, message in (((0, 2), "embedding"), ((1, 4), r"defense\.targets=4.*0 to 3")):
        with pytest.raises(UserError, match=message):
            CircuitBreakers(targets=targets).init(small.MODEL, small.params(), BATCH, KEY)
    with pytest.raises(UserError, match="both streams"):
        CircuitBreakers(mixture=Mixture(harmful=2))

"""The objective against a hand-written reference that keeps every logit and loops over layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.data.batches import pad
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.defenses.adversarial_loss import AdversarialLoss
from immunax.defenses.rep_noise import RepNoise, differing_positions, noise_distance
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.outer.defense import Mixture, StreamBatch
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)


SAFE, HARMFUL, RETAIN = small.batch(1, 3), small.batch(2, 5), small.batch(3, 4)
BATCH = StreamBatch(SAFE, HARMFUL, None)


def _hidden(weights, batch, capture=False):
    return small.MODEL.apply(weights, batch.tokens, batch.segment_ids, batch.positions, capture=capture)


def test_the_published_objective_has_no_harmless_term_and_a_mixture_with_one_adds_it():
    weights = small.params()
    published, terms = RepNoise().loss(small.MODEL, weights, (), BATCH, KEY)
    assert "retain" not in terms
    np.testing.assert_allclose(
        published, terms["safe"] + 0.001 * terms["noise"] - jnp.log1p(terms["harmful_layers"]), rtol=1e-5
    )
    held, terms = RepNoise(gamma=2.0).loss(small.MODEL, weights, (), BATCH._replace(retain=RETAIN), KEY)
    np.testing.assert_allclose(held - published, 2 * terms["retain"], rtol=1e-4)
    np.testing.assert_allclose(
        terms["retain"], small.answer_nll(weights, _hidden(weights, RETAIN).hidden, RETAIN), rtol=1e-4
    )


def test_answers_differ_where_one_has_ended_whatever_its_padding_holds_and_only_where_the_harmful_one_has_not():
    short, long = (pad([Encoded((1,), answer)], Layout(1, 5, 4)) for answer in ((3,), (3, 0, 4)))
    np.testing.assert_array_equal(differing_positions(short, long), [[False, False, True, True, False]])
    assert not differing_positions(long, short).any()


def test_positions_where_both_answers_agree_do_not_count_for_the_noise():
    activations = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    mask = jnp.array([[False, True, True, False]] * 3)
    changed = activations.at[:, :, 0].add(100.0)
    assert float(noise_distance(activations, mask, KEY)) == float(noise_distance(changed, mask, KEY))
    assert float(noise_distance(activations, mask, KEY)) != float(noise_distance(activations + 1, mask, KEY))


def test_rows_of_padding_change_nothing():
    activations = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    mask = jnp.array([[False, True, True, False]] * 3)
    more = jnp.pad(activations, ((0, 0), (0, 5), (0, 0), (0, 0)), constant_values=3.0)
    one, other = noise_distance(activations, mask, KEY), noise_distance(more, jnp.pad(mask, ((0, 5), (0, 0))), KEY)
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_adversarial_loss_and_safety_tuning_are_their_formulas():
    weights = small.params()
    batch = StreamBatch(SAFE, HARMFUL, RETAIN)
    safe, harmful, retain = (small.answer_nll(weights, _hidden(weights, part).hidden, part) for part in batch[:3])
    adversarial, _ = AdversarialLoss(weight=0.3).loss(small.MODEL, weights, (), batch, KEY)
    np.testing.assert_allclose(adversarial, safe - 0.3 * harmful, rtol=1e-4)
    tuning, _ = SafetyTuning(Mixture(safe=3, retain=1)).loss(small.MODEL, weights, (), batch, KEY)
    np.testing.assert_allclose(tuning, 0.75 * safe + 0.25 * retain, rtol=1e-4)
    alone, _ = SafetyTuning(Mixture(safe=3)).loss(small.MODEL, weights, (), StreamBatch(safe=SAFE), KEY)
    np.testing.assert_allclose(alone, safe, rtol=1e-4)


def test_a_mixture_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="paired"):
        Mixture(safe=2, harmful=3, paired=True)
    with pytest.raises(UserError, match="positive"):
        Mixture()
    with pytest.raises(UserError, match=r"mixture\.paired=False"):
        RepNoise(mixture=Mixture(safe=2, harmful=2))
    with pytest.raises(UserError, match=r"mixture\.harmful=0"):
        AdversarialLoss(mixture=Mixture(safe=2))

"""Labels where two answers differ, against a loop over tokens."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from immunax.data.batches import Batch, pad
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.defenses.adversarial_loss import AdversarialLoss
from immunax.defenses.mlac import Mlac
from immunax.defenses.pairs import differing, of_answer
from immunax.defenses.rep_noise import RepNoise, answer_positions
from immunax.defenses.seam import Seam
from immunax.defenses.sophon import Sophon
from immunax.inner.losses import answers_by_column, every_token
from immunax.inner.padding import padded_with
from immunax.outer.defense import Mixture
from immunax.outer.simulation import Simulation
from immunax.runtime.errors import UserError

LAYOUT = Layout(2, 8, 8)
SAFE = pad([Encoded((3, 4), (5, 6, 7, 8)), Encoded((9,), (10, 11))], LAYOUT)
HARMFUL = pad([Encoded((3, 4), (5, 16, 7, 18, 19)), Encoded((9,), (20, 21))], LAYOUT)


def labelled(batch: Batch) -> list[list[tuple[int, int]]]:
    """By row: each label's column and id."""
    rows = zip(
        *(np.asarray(leaf) for leaf in (batch.answer_index, batch.answer_label, batch.answer_weight)), strict=True
    )
    return [[(int(i) + 1, int(y)) for i, y, w in zip(*row, strict=True) if w] for row in rows]


def test_labels_are_the_tokens_that_differ_and_one_after_a_shared_token_is_blind():
    found = differing(HARMFUL, SAFE)
    # Row 0 differs in columns 3, 5 and 6, of which 3 and 5 follow a shared token; row 1 in columns 1 and 2, after a shared one.
    assert labelled(found.batch) == [[(6, 19)], [(2, 21)]]
    assert float(found.blind) == pytest.approx(3 / 5)
    assert of_answer(HARMFUL, SAFE).batch is HARMFUL


def test_padding_is_a_label_where_it_is_a_token():
    safe, harmful = padded_with(SAFE, 2), padded_with(HARMFUL, 2)
    assert labelled(differing(safe, harmful).batch) == [[(6, 2)], [(2, 11)]]
    assert labelled(differing(SAFE, HARMFUL).batch) == [[], [(2, 11)]]


def test_answers_by_column_are_the_same_labels_in_the_shape_of_every_token():
    for batch in (HARMFUL, SAFE):
        spread = answers_by_column(batch)
        assert labelled(spread) == labelled(batch)
        assert jax.tree.map(np.shape, spread) == jax.tree.map(np.shape, every_token(batch))


def test_the_positions_of_answers_are_their_tokens_own():
    np.testing.assert_array_equal(
        np.argwhere(answer_positions(SAFE, SAFE)), [(0, 2), (0, 3), (0, 4), (0, 5), (1, 1), (1, 2)]
    )


PAIRED = Mixture(safe=1, harmful=1, retain=1, paired=True)


@pytest.mark.parametrize("make", [AdversarialLoss, Seam])
def test_labels_where_answers_differ_need_pairs(make):
    with pytest.raises(UserError, match=r"mixture\.paired=true"):
        make(labels="differing", mixture=replace(PAIRED, paired=False))


def test_a_form_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'differing'"):
        RepNoise(labels="differring")
    with pytest.raises(UserError, match=r"defense\.noise_on"):
        RepNoise(noise_on="prompt")
    with pytest.raises(UserError, match=r"defense\.output='thrice'"):
        Seam(output="thrice")
    with pytest.raises(UserError, match=r"defense\.harmless_labels"):
        Seam(harmless_labels="answer_tokens")
    with pytest.raises(UserError, match="Did you mean 'kl_uniform'"):
        Sophon(objective="uniform_kl_uniform")
    with pytest.raises(UserError, match=r"simulation\.checks=16, found 1"):
        Mlac(checks="trajectory", mixture=Mixture(safe=1, retain=1, simulation=Simulation(16, 1)))

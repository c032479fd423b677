"""Padding that is a token like any other, but that nothing reads."""

import jax
import numpy as np
from small import MODEL, params, plain_logits

from immunax.data.batches import pack, pad
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.inner.padding import padded_with

PAD = 2
BATCH = pack([Encoded((3, 4), (5, 6, 7)), Encoded((8,), (9, 10))], Layout(2, 12, 8))


def test_padding_reads_the_example_that_it_follows_and_itself_not():
    batch = padded_with(BATCH, PAD)
    hidden = MODEL.apply(params(), batch.tokens, batch.segment_ids, batch.positions).hidden
    found = MODEL.logits(params(), hidden)
    np.testing.assert_array_equal(batch.positions[0], [*range(5), *range(7)])
    # The first padding token's position is the third of its example; it reads the example's tokens alone, so that of two
    # sequences which differ in it only, the predictions before it are the same.
    alone = plain_logits(MODEL, params(), (8, 9, 10))
    np.testing.assert_allclose(found[0, 5:8], alone, atol=1e-4)
    other = padded_with(BATCH, PAD + 1)
    moved = MODEL.apply(params(), other.tokens, other.segment_ids, other.positions).hidden
    np.testing.assert_array_equal(hidden[0, :8], moved[0, :8])
    assert np.abs(hidden[0, 8:] - moved[0, 8:]).max() > 1e-3


def test_rows_without_an_example_and_batches_without_a_padding_token_stay():
    batch = padded_with(BATCH, PAD)
    assert (np.asarray(batch.segment_ids[1]) == 0).all()
    assert (np.asarray(batch.tokens[1]) == 0).all()
    assert padded_with(BATCH, None) is BATCH
    jax.tree.map(
        np.testing.assert_array_equal,
        (batch.answer_index, batch.answer_label),
        (BATCH.answer_index, BATCH.answer_label),
    )


def test_padding_may_end_with_the_longest_row():
    rows = pad([Encoded((3, 4), (5, 6, 7)), Encoded((8,), (9,))], Layout(2, 12, 8))
    batch = padded_with(rows, PAD, to_longest=True)
    np.testing.assert_array_equal(batch.segment_ids[1], [1, 1, -1, -1, -1, *[0] * 7])
    np.testing.assert_array_equal(batch.tokens[1, :5], [8, 9, PAD, PAD, PAD])
    np.testing.assert_array_equal(batch.segment_ids[0], rows.segment_ids[0])

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunax.data.batches import Batch, pack, pad, sizes, stack
from immunax.data.chat import Encoded
from immunax.data.packing import Layout, first_fit, fit_packed, fit_padded

token = st.integers(1, 999)
ids = st.lists(token, min_size=1, max_size=30).map(tuple)
examples = st.lists(st.builds(Encoded, ids, ids), min_size=1, max_size=12)
batches = st.lists(examples, min_size=1, max_size=4)


def read_back(batch: Batch) -> list[Encoded]:
    """Every example of a batch, rebuilt from its arrays alone."""
    found = []
    for row in range(batch.tokens.shape[0]):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            columns = np.flatnonzero(batch.segment_ids[row] == segment)
            tokens = batch.tokens[row, columns]
            assert batch.positions[row, columns].tolist() == list(range(len(columns)))
            assert columns.tolist() == list(range(columns[0], columns[-1] + 1))
            mine = (batch.answer_weight[row] == 1) & np.isin(batch.answer_index[row], columns)
            predicted, labels = batch.answer_index[row, mine] + 1, batch.answer_label[row, mine]
            assert batch.tokens[row, predicted].tolist() == labels.tolist()
            answers = len(labels)
            assert predicted.tolist() == columns[-answers:].tolist()
            found.append(Encoded(tuple(tokens[:-answers].tolist()), tuple(labels.tolist())))
    assert batch.answer_weight.sum() == sum(len(example.answer) for example in found)
    padding = batch.segment_ids == 0
    assert not batch.tokens[padding].any()
    assert not batch.positions[padding].any()
    return found


def by_value(found):
    return sorted(found, key=lambda example: (example.prompt, example.answer))


@given(batches, st.integers(1, 3))
def test_packed_rows_reproduce_each_example_exactly(lists, divisor):
    layout = fit_packed(lists, divisor)
    assert layout.rows % divisor == layout.length % 8 == layout.answers % 8 == 0
    for found in lists:
        batch = pack(found, layout)
        assert batch.tokens.shape == (layout.rows, layout.length)
        assert batch.answer_label.shape == (layout.rows, layout.answers)
        assert by_value(read_back(batch)) == by_value(found)


@given(batches, st.integers(1, 3))
def test_padded_rows_hold_one_example_each_in_order(lists, divisor):
    layout = fit_padded(lists, divisor)
    assert layout.rows % divisor == layout.length % 8 == layout.answers % 8 == 0
    for found in lists:
        batch = pad(found, layout)
        assert batch.segment_ids.max() == 1
        assert read_back(batch) == found


@given(batches)
def test_the_sizes_of_examples_are_those_that_were_laid(lists):
    for fit, lay in ((fit_packed, pack), (fit_padded, pad)):
        layout = fit(lists)
        found = sizes(stack([lay(each, layout) for each in lists]))
        expected = [example for each in lists for example in each]
        assert sorted(size for size, _ in found) == sorted(len(each.tokens) for each in expected)
        assert sum(answers for _, answers in found) == sum(len(each.answer) for each in expected)


@given(batches)
def test_packing_never_costs_more_tokens_than_padding(lists):
    packed, padded = fit_packed(lists), fit_padded(lists)
    assert packed.rows * packed.length <= padded.rows * padded.length


def test_many_short_rows_are_preferred_to_a_few_long_ones():
    lists = [[Encoded((1,) * 100, (2,) * 28)] * 16]
    assert fit_packed(lists) == Layout(rows=16, length=128, answers=32)


@given(st.lists(st.integers(1, 20), max_size=30))
def test_first_fit_decreasing_packs_each_item_once_within_its_bound(lengths):
    bins = first_fit(lengths, 20)
    assert sorted(item for items in bins for item in items) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in items) <= 20 for items in bins)
    # All bins but one are more than half full: two half-empty ones would have been one.
    assert sum(sum(lengths[item] for item in items) <= 10 for items in bins) <= 1


def test_four_examples_share_two_full_rows():
    sizes = [(5, 5), (3, 3), (7, 3), (2, 4)]
    lists = [[Encoded((1,) * prompt, (2,) * answer) for prompt, answer in sizes]]
    assert fit_packed(lists) == Layout(rows=2, length=16, answers=8)
    assert fit_packed(lists, divisor=3).rows == 3
    assert fit_padded(lists) == Layout(rows=4, length=16, answers=8)


def test_the_index_of_an_answer_token_is_the_column_before_it():
    batch = pad([Encoded((7, 8, 9), (4, 5))], Layout(1, 8, 8))
    assert batch.tokens[0].tolist() == [7, 8, 9, 4, 5, 0, 0, 0]
    assert batch.answer_index[0, :2].tolist() == [2, 3]
    assert batch.answer_label[0, :2].tolist() == [4, 5]
    assert batch.answer_weight[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_batches_have_the_types_of_the_interface_and_are_pytrees():
    batch = pad([Encoded((7, 8), (4,))], Layout(2, 8, 8))
    kinds = [leaf.dtype for leaf in jax.tree.leaves(batch)]
    assert kinds == [np.int32] * 5 + [np.float32]
    total = jax.jit(lambda batch: batch.answer_weight.sum())(batch)
    assert total == 1


def test_stacking_adds_a_leading_axis():
    layout = Layout(2, 8, 8)
    found = [pad([Encoded((7,), (number,))], layout) for number in (1, 2, 3)]
    stacked = stack(found)
    assert stacked.tokens.shape == (3, 2, 8)
    assert stacked.answer_label[:, 0, 0].tolist() == [1, 2, 3]


def test_examples_that_do_not_fit_their_layout_are_refused():
    example = Encoded((1,) * 5, (2,) * 5)
    with pytest.raises(ValueError, match="an example of 10 tokens does not fit a row of 8"):
        pack([example], Layout(1, 8, 8))
    with pytest.raises(ValueError, match="needs 2 rows, more than the 1"):
        pad([example, example], Layout(1, 16, 8))
    with pytest.raises(ValueError, match="row 0 needs 10 tokens and 5 answer tokens"):
        pad([example], Layout(1, 16, 4))

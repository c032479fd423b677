import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunax.data.chat import Encoded
from immunax.data.order import Stream, choose, indices
from immunax.runtime.errors import UserError

EXAMPLES = [Encoded((1,), (number,)) for number in range(7)]


@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 5), st.integers(0, 2**40))
def test_each_epoch_visits_each_example_once(n, batch_size, epoch, seed):
    steps = -(-(epoch + 1) * n // batch_size)
    places = np.concatenate([indices(n, batch_size, step, seed) for step in range(steps)])
    assert sorted(places[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_the_order_is_fixed_across_versions():
    assert indices(5, 10, 0, 0).tolist() == [0, 3, 1, 2, 4, 3, 4, 2, 1, 0]


@given(st.integers(1, 30), st.integers(0, 2**40), st.data())
def test_what_a_seed_chooses_begins_its_first_shuffle_and_stays_when_more_is_asked_for(n, seed, data):
    items = [f"item {number}" for number in range(n)]
    count = data.draw(st.integers(0, n))
    chosen = choose(items, count, seed)
    assert chosen == tuple(items[place] for place in indices(n, n, 0, seed))[:count]
    assert len(set(chosen)) == count


def test_one_seed_chooses_the_same_places_of_paired_streams():
    others = [example.answer for example in EXAMPLES]
    assert [example.answer for example in choose(EXAMPLES, 4, 9)] == list(choose(others, 4, 9))


@given(st.integers(1, 9), st.integers(0, 20))
def test_a_run_resumed_at_a_step_sees_the_same_batches(batch_size, step):
    whole = list(Stream(EXAMPLES, batch_size, 3).batches(range(step + 3)))
    assert list(Stream(EXAMPLES, batch_size, 3).batches(range(step, step + 3))) == whole[step:]
    assert all(len(batch) == batch_size for batch in whole)


def test_epochs_and_seeds_shuffle_differently():
    orders = {tuple(indices(50, 50, epoch, seed).tolist()) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


def test_streams_of_one_length_and_seed_stay_in_step():
    others = [Encoded((2,), example.answer) for example in EXAMPLES]
    for step in range(5):
        one, other = Stream(EXAMPLES, 4, 9).batch(step), Stream(others, 4, 9).batch(step)
        assert [example.answer for example in one] == [example.answer for example in other]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([], 2, 0), "no examples"), ((EXAMPLES, 0, 0), "batch_size is 0"), ((EXAMPLES, 2, -1), "seed is -1")],
)
def test_a_stream_that_makes_no_sense_is_a_user_error(arguments, message):
    with pytest.raises(UserError, match=message):
        Stream(*arguments)


def test_a_negative_seed_chooses_nothing():
    with pytest.raises(UserError, match="seed is -1"):
        choose(EXAMPLES, 2, -1)

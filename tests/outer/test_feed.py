from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

from immunax.data.dialog import Split, ask
from immunax.data.packing import total
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.simulation import Simulation
from immunax.outer.training import Training
from immunax.runtime.errors import UserError

SPLIT = Split(
    safe=tuple(ask(f"how to {i}", f"no to {i}") for i in range(7)),
    harmful=tuple(ask(f"how to {i}", f"yes, {i} and then {i * 99}") for i in range(7)),
    retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(5)),
)


def test_pairs_share_their_prompt_and_their_shape_row_by_row():
    data = feed(tiny.tokenizer(), SPLIT, Mixture(safe=3, harmful=3, retain=2, paired=True), Training(steps=4))
    for step in range(4):
        batch = data.batch(step)
        assert batch.safe.tokens.shape == batch.harmful.tokens.shape
        for safe, harmful, first in zip(
            batch.safe.tokens, batch.harmful.tokens, batch.safe.answer_index[:, 0], strict=True
        ):
            np.testing.assert_array_equal(safe[: first + 1], harmful[: first + 1])
        assert (batch.safe.tokens != batch.harmful.tokens).any()
        assert batch.retain.answer_weight.sum() > 0


@pytest.mark.parametrize("divisor", [1, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_tokens_of_a_run_are_those_of_its_batches(divisor, accumulate):
    simulation = Simulation(2, 1, 2, 1, paired=True, mixed=True)
    mixture = Mixture(safe=2, harmful=2, retain=3, paired=True, simulation=simulation)
    training = Training(steps=2, accumulate=accumulate)
    data = feed(tiny.tokenizer(), SPLIT, mixture, training, divisor)
    batches = [data.batch(step) for step in range(2)]
    parts = {name: [(getattr(each, name),) for each in batches] for name in ("safe", "harmful", "retain")}
    parts["simulation_attack"] = [(each.simulation.harmful, each.simulation.retain) for each in batches]
    parts["simulation_checks"] = [(each.simulation.checks, each.simulation.safe_checks) for each in batches]
    assert data.tokens.keys() == parts.keys()
    for name, found in parts.items():
        segments = [batch.segment_ids for each in found for batch in each]
        assert data.tokens[name].real == sum((each > 0).sum() for each in segments), name
        assert data.tokens[name].shape == sum(each.size for each in segments), name
    assert (total(data.tokens.values()).share < 0.5) == (divisor == 8)


def test_every_step_has_one_shape_and_is_a_function_of_its_number():
    one, other = (feed(tiny.tokenizer(), SPLIT, Mixture(safe=2, retain=2), Training(steps=9, seed=3)) for _ in range(2))
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(one.batch(step))) for step in range(9)}
    assert len(shapes) == 1
    for step in (8, 2):
        jax.tree.map(np.testing.assert_array_equal, one.batch(step), other.batch(step))
    assert one.batch(0).harmful is None


def test_a_stream_that_the_data_lack_is_named():
    with pytest.raises(UserError, match="'retain'"):
        feed(tiny.tokenizer(), Split(safe=SPLIT.safe), Mixture(safe=2, retain=2), Training())


def test_accumulated_batches_lie_one_behind_the_other_in_the_order_of_smaller_steps():
    mixture = Mixture(safe=2, retain=2)
    many, few = (feed(tiny.tokenizer(), SPLIT, mixture, Training(steps=4 // n, accumulate=n)) for n in (1, 2))
    parts = [many.batch(step) for step in (2, 3)]
    jax.tree.map(lambda whole, *part: np.testing.assert_array_equal(whole, np.concatenate(part)), few.batch(1), *parts)


@pytest.mark.parametrize("together", [1, 2])
def test_harmful_batches_of_topics_come_in_turn(together):
    topics = ["bio", "cyber"] * 3
    harmful = tuple(replace(ask(f"how to {i}", topic), topic=topic) for i, topic in enumerate(topics))
    mixture, training = Mixture(harmful=2, retain=2, topics=("cyber", "bio")), Training(steps=4, accumulate=together)
    tokenizer = tiny.tokenizer()
    data = feed(tokenizer, replace(SPLIT, harmful=harmful), mixture, training)
    assert data.counts["harmful"].kept == 6
    for step, topic in enumerate(("cyber", "bio", "cyber", "bio")):
        text = tokenizer.decode(data.batch(step).harmful.tokens.ravel())
        assert text.count(topic) == 2 * together
        assert ("bio" if topic == "cyber" else "cyber") not in text


def test_a_topic_that_the_data_lack_is_named_with_those_that_they_have():
    named = replace(SPLIT, harmful=tuple(replace(each, topic="cyber") for each in SPLIT.harmful))
    for split, message in ((named, "sources of the data are cyber.* Did you mean 'cyber'"), (SPLIT, "name no topics")):
        with pytest.raises(UserError, match=message):
            feed(tiny.tokenizer(), split, Mixture(harmful=2, topics=("cyberr",)), Training())
    with pytest.raises(UserError, match="without pairs"):
        Mixture(safe=2, harmful=2, paired=True, topics=("bio",))


def test_streams_that_are_not_packed_have_a_row_for_each_example():
    for packed, rows in ((False, {1}), (True, {1, 2, 3})):
        batch = feed(tiny.tokenizer(), SPLIT, Mixture(harmful=2, retain=3, packed=packed), Training(steps=2)).batch(1)
        assert set(batch.retain.segment_ids.max(axis=1)) <= rows
        assert batch.retain.tokens.shape[0] == 3 or packed
    assert batch.retain.segment_ids.max() > 1

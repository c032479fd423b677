from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

from immunax.data.dialog import Split, ask
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.simulation import Simulation
from immunax.outer.training import Training
from immunax.runtime.errors import UserError

SPLIT = Split(
    safe=tuple(ask(f"how to {i}", f"no to {i}") for i in range(20)),
    harmful=tuple(ask(f"how to {i}", f"yes, {i} and then {i * 99}") for i in range(20)),
    retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(5)),
)


def _feed(simulation, steps=3):
    return feed(tiny.tokenizer(), SPLIT, Mixture(retain=2, simulation=simulation), Training(steps=steps))


def _prompts(batch):
    """The set of prompts of a stacked batch, as token tuples."""
    found = set()
    for tokens, segments, index, weight in zip(
        *(
            leaf.reshape(-1, leaf.shape[-1])
            for leaf in (batch.tokens, batch.segment_ids, batch.answer_index, batch.answer_weight)
        ),
        strict=True,
    ):
        starts = {segments[column]: column for column, real in reversed(list(zip(index, weight, strict=True))) if real}
        for segment, column in starts.items():
            found.add(tuple(tokens[: column + 1][segments[: column + 1] == segment].tolist()))
    return found


def test_checks_are_held_out_from_the_attack_of_the_same_step():
    data = _feed(Simulation(4, 3, checks=2, check=2))
    for step in range(3):
        attack = data.batch(step).simulation
        assert attack.harmful.tokens.shape[0] == 4
        assert attack.checks.tokens.shape[0] == 2
        trained, checked = _prompts(attack.harmful), _prompts(attack.checks)
        assert (len(trained), len(checked)) == (12, 4)
        assert not trained & checked


def test_paired_checks_answer_the_same_prompts_row_by_row_and_harmless_batches_have_the_attacks_shape():
    attack = _feed(Simulation(4, 3, checks=2, check=2, paired=True, mixed=True)).batch(1).simulation
    assert _prompts(attack.checks) == _prompts(attack.safe_checks)
    first = attack.checks.answer_index[:, :, 0]
    np.testing.assert_array_equal(first, attack.safe_checks.answer_index[:, :, 0])
    assert (attack.checks.tokens != attack.safe_checks.tokens).any()
    assert [leaf.shape for leaf in jax.tree.leaves(attack.retain)] == [
        leaf.shape for leaf in jax.tree.leaves(attack.harmful)
    ]


def test_a_step_is_a_function_of_its_number_and_all_have_one_shape():
    one, other = (_feed(Simulation(2, 3), 5) for _ in range(2))
    assert len({tuple(leaf.shape for leaf in jax.tree.leaves(one.batch(step))) for step in range(5)}) == 1
    jax.tree.map(np.testing.assert_array_equal, one.batch(4), other.batch(4))


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(UserError, match="divisor"):
        Simulation(6, 1, checks=4)
    with pytest.raises(UserError, match="take 34 harmful examples, and the data have 20"):
        _feed(Simulation(10, 3))
    mixture = Mixture(safe=1, simulation=Simulation(1, 1, mixed=True))
    with pytest.raises(UserError, match="'retain'"):
        feed(tiny.tokenizer(), replace(SPLIT, retain=()), mixture, Training(steps=1))


def test_one_held_out_batch_can_serve_all_checks():
    attack = _feed(Simulation(4, 3, checks=4, check=2, same_check=True)).batch(0).simulation
    assert len(attack.checks.tokens) == 4
    assert (attack.checks.tokens == attack.checks.tokens[:1]).all()
    assert not _prompts(attack.harmful) & _prompts(attack.checks)

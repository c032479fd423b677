from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.inner.halving import Halving, Merit, Rung, halve, rung_of
from immunax.inner.memory import compile_turns
from immunax.inner.optimizers import AdamW
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build

STEPS, TARGET = 18, 3.0


def _loss(weights, batch):
    return jnp.sum((weights - batch) ** 2)


def closest(member, shared):
    """Ranks by the distance to the target; weights above a member's cap are not allowed."""
    state, batches, own = member
    state = begin(AdamW().build(STEPS, {"learning_rate": own["rates"]}), shared) if state is None else state
    state, metrics = scan_steps(slope_of(_loss), AdamW().build(STEPS), state, batches)
    merit = Merit(-jnp.sum((state.trained - TARGET) ** 2), own["cap"] >= jnp.max(state.trained))
    return state, metrics["loss"], merit


def _search(learning_rates, cap, rungs, mesh=None):
    own = {"cap": cap, "rates": jnp.repeat(learning_rates[:, None], STEPS, axis=1)}
    batches = jnp.full((len(learning_rates), STEPS, 2), TARGET)
    return halve(closest, rungs, batches, own, jnp.zeros(2), mesh=mesh)


RUNGS = Halving(2, 3).rungs(9, STEPS)
RATES = jnp.array([1e-4, 0.17, 1e-3, 3e-3, 1e-2, 0.05, 3e-4, 2e-2, 3e38])
FREE = jnp.full(9, jnp.inf)


def test_each_stretch_is_eta_times_as_long_and_a_third_go_on():
    assert (Rung(9, 0, 2), Rung(3, 2, 6), Rung(1, 6, 18)) == RUNGS
    assert Halving(5, 2).rungs(3, 8) == (Rung(3, 0, 5), Rung(1, 5, 8))
    assert Halving(5, 3).rungs(27, 4) == (Rung(27, 0, 4),)
    assert sum(rung.members * (rung.end - rung.begin) for rung in RUNGS) < 9 * STEPS / 3
    with pytest.raises(UserError, match="eta"):
        Halving(1, 1)


def test_the_search_finds_the_member_that_comes_closest_and_its_weights_are_those_of_the_run_alone():
    best, seen = _search(RATES, FREE, RUNGS)
    assert (best.place, best.steps) == (1, 18)
    assert [len(ranked.places) for ranked in seen] == [9, 3, 1]
    assert set(seen[1].places) == {1, 5, 7}
    optimizer = AdamW(0.17).build(STEPS)
    alone, metrics = jax.jit(lambda start: scan_steps(slope_of(_loss), optimizer, start, jnp.full((STEPS, 2), TARGET)))(
        begin(optimizer, jnp.zeros(2))
    )
    np.testing.assert_allclose(best.trained, alone.trained, rtol=1e-5)
    joined = np.concatenate([each.trace[each.places == 1][0] for each in seen])
    np.testing.assert_allclose(joined, metrics["loss"], rtol=1e-5)


def test_a_member_that_is_not_allowed_is_never_the_one_found_and_a_diverged_one_goes_on_last():
    best, seen = _search(RATES, FREE.at[1].set(0.2), RUNGS)
    assert best.place == 5
    assert 1 not in seen[1].places
    assert seen[0].diverged_at[8] == 1
    none, seen = _search(RATES, jnp.full(9, -1.0), RUNGS)
    assert none is None
    assert 8 not in seen[1].places


def test_the_best_may_be_one_that_was_allowed_early_and_not_later():
    best, _ = _search(RATES, jnp.full(9, 0.5), RUNGS)
    assert (best.place, best.steps) == (1, 2)


def test_a_search_over_devices_finds_the_same():
    one, other = _search(RATES, FREE, RUNGS), _search(RATES, FREE, RUNGS, build(MeshSpec(attack=8)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), other, one)


def test_a_rung_writes_its_states_where_they_lay_and_programs_of_equal_shapes_are_made_once():
    state = jax.eval_shape(lambda: begin(AdamW().build(STEPS), jnp.zeros(2)))
    states = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), state)
    own = {"cap": jnp.zeros(4), "rates": jnp.zeros((4, STEPS))}
    inputs = states, (jnp.zeros((4, 3, 2)), own), jnp.zeros(2)
    programs = [compile_turns(rung_of, inputs, 4, donate=0, member=closest) for _ in range(2)]
    assert programs[0] is programs[1]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(states))
    assert programs[0].memory_analysis().alias_size_in_bytes == held

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.inner.halving import Halving, Merit, Rung, halve
from immunax.inner.optimizers import AdamW
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.runtime.errors import UserError

STEPS, TARGET = 18, 3.0


def _loss(weights, batch):
    return jnp.sum((weights - batch) ** 2)


class Toy:
    """Ranks by the distance to the target; weights above a member's cap are not allowed."""

    def __init__(self, rates, cap):
        numbers = {"learning_rate": jnp.repeat(rates[:, None], STEPS, axis=1)}
        begun = jax.vmap(lambda own: begin(AdamW().build(STEPS, own), jnp.zeros(2)))(numbers)
        self.states, self.cap, self.places = begun, cap, np.arange(len(rates))

    def take(self, rung, places):
        rows = np.array([self.places.tolist().index(place) for place in places])
        states = jax.tree.map(lambda leaf: leaf[rows], self.states)
        batches = jnp.full((rung.end - rung.begin, 2), TARGET)
        led = jax.vmap(lambda state: scan_steps(slope_of(_loss), AdamW().build(STEPS), state, batches))
        self.states, metrics = jax.jit(led)(states)
        self.places, trained = places, np.asarray(self.states.trained)
        merit = Merit(-np.sum((trained - TARGET) ** 2, axis=1), self.cap[places] >= trained.max(axis=1))
        return np.asarray(metrics["loss"]), np.asarray(self.states.diverged_at), merit

    def keep(self, row):
        return self.states.trained[row]


def _search(rates, cap, rungs):
    toy = Toy(rates, np.asarray(cap))
    return halve(rungs, toy.take, toy.keep)


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

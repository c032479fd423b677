from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.inner.memory import compile_members, most_that_fit, peak_bytes
from immunax.inner.optimizers import SCHEDULES, AdamW
from immunax.inner.population import Plan, map_members, plan
from immunax.inner.state import HEALTHY, begin
from immunax.inner.step import scan_steps, slope_of
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build

STEPS = 6
OPTIMIZER = AdamW()
FIELDS = ("weight_decay", "b1", "b2")


pytestmark = pytest.mark.usefixtures("compile_fast")


def _mlp(weights, batch):
    hidden = jnp.tanh(batch["x"] @ weights["into"])
    return jnp.mean((hidden @ weights["out"] - batch["y"]) ** 2)


def _weights(seed=0):
    rng = np.random.default_rng(seed)
    return {"into": jnp.asarray(rng.normal(size=(3, 5)), "f4"), "out": jnp.asarray(rng.normal(size=5), "f4")}


def _batches(seed):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(STEPS, 8, 3)).astype("f4"), "y": rng.normal(size=(STEPS, 8)).astype("f4")}


def _members(optimizers, seeds=None):
    """Numbers and batches, ``[A, ...]``."""
    seeds = range(len(optimizers)) if seeds is None else seeds
    each = [
        (optimizer.numbers(STEPS, FIELDS), _batches(seed)) for optimizer, seed in zip(optimizers, seeds, strict=True)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _member(own, weights):
    numbers, batches = own
    start = begin(OPTIMIZER.build(STEPS, numbers), weights)
    state, metrics = scan_steps(slope_of(_mlp), OPTIMIZER.build(STEPS), start, batches)
    return state._replace(held=(), key=()), metrics["loss"]


@partial(jax.jit, static_argnames=("mesh", "chunk"))
def _together(weights, members, mesh=None, chunk=None):
    return map_members(_member, members, weights, mesh=mesh, chunk=chunk)


def _rates(*values):
    return [AdamW(value) for value in values]


@jax.jit
def _alone(weights, numbers, batches):
    optimizer = AdamW(numbers["rate"], weight_decay=numbers["decay"], b1=numbers["b1"], b2=numbers["b2"]).build(STEPS)
    return scan_steps(slope_of(_mlp), optimizer, begin(optimizer, weights), batches)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-4, 0.3), st.floats(0, 0.3), st.floats(0, 0.95), st.floats(0.5, 0.999)),
        min_size=3,
        max_size=3,
    ),
    st.integers(0, 99),
)
def test_any_grid_of_one_shape_runs_in_one_program_and_equals_its_members(grid, seed):
    optimizers = [AdamW(rate, weight_decay=decay, b1=b1, b2=b2) for rate, decay, b1, b2 in grid]
    _together(_weights(), _members(_rates(0.1, 0.2, 0.3)))
    programs = _together._cache_size()
    states, losses = _together(_weights(seed), _members(optimizers, range(seed, seed + 3)))
    assert _together._cache_size() == programs
    for i, setting in enumerate(grid):
        numbers = dict(zip(("rate", "decay", "b1", "b2"), map(jnp.float32, setting), strict=True))
        state, metrics = _alone(_weights(seed), numbers, _batches(seed + i))
        np.testing.assert_allclose(losses[i], metrics["loss"], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(states.trained["into"][i], state.trained["into"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("cause", "at"), [("data", 3), ("loss after a huge step", 4)])
def test_a_diverged_member_stays_at_its_last_finite_state_and_changes_no_neighbour_by_a_bit(cause, at):
    healthy = numbers, batches = _members(_rates(0.1, 0.05, 0.02))
    if cause == "data":
        ill = numbers, {**batches, "y": batches["y"].at[1, 3, 0].set(jnp.nan)}
    else:
        ill = {**numbers, "learning_rate": numbers["learning_rate"].at[1, 3].set(3e38)}, batches
    (well, losses), (frozen, marked) = _together(_weights(), healthy), _together(_weights(), ill)
    np.testing.assert_array_equal(well.diverged_at, [HEALTHY] * 3)
    np.testing.assert_array_equal(frozen.diverged_at, [HEALTHY, at, HEALTHY])
    others = np.array([0, 2])
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others]),
        (well, losses),
        (frozen, marked),
    )
    assert np.isnan(marked[1, at + 1 :]).all()
    np.testing.assert_array_equal(marked[1, :3], losses[1, :3])
    stopped, _ = _together(_weights(), (ill[0], jax.tree.map(lambda leaf: leaf[:, :at], ill[1])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b[1], rtol=1e-6), frozen.trained, stopped.trained)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stopped.trained))


def test_eight_devices_along_attack_and_chunks_of_three_give_what_one_vmap_gives():
    members = _members(_rates(*np.geomspace(1e-3, 0.2, 11)))
    whole = _together(_weights(), members)
    for options in (
        {"mesh": build(MeshSpec(attack=8))},
        {"mesh": build(MeshSpec(attack=2, fsdp=4)), "chunk": 2},
        {"chunk": 3},
        {"chunk": 1},
    ):
        other = _together(_weights(), members, **options)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), other, whole)


def test_members_lie_on_the_devices_they_are_planned_for():
    mesh = build(MeshSpec(attack=8))
    losses = _together(_weights(), _members(_rates(*[0.1] * 16)), mesh)[1]
    assert losses.sharding.shard_shape(losses.shape) == (2, STEPS)
    assert [plan(10, 4), plan(10, 1, 4), plan(10, 2, 4), plan(3, 8)] == [
        Plan(4, 1, 3),
        Plan(1, 3, 4),
        Plan(2, 2, 3),
        Plan(8, 1, 1),
    ]


def test_keys_are_mapped_and_padded_like_any_other_input():
    keys = jax.random.split(jax.random.key(0), 5)
    draw = jax.jit(lambda keys: map_members(lambda key, size: size * jax.random.normal(key), keys, 2.0, chunk=2))
    np.testing.assert_allclose(draw(keys), 2 * jax.vmap(jax.random.normal)(keys))


def _wide(own, shared):
    big = own["x"][:, None] * shared["row"][None]
    return jnp.sum(jnp.sort(big, axis=0)[-1])


def test_a_population_too_large_for_the_memory_is_chunked_to_fit_it_and_gives_the_same():
    own = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(16, 64)), "f4")}
    shared = {"row": jnp.ones(1024)}
    whole = compile_members(_wide, own, shared, available=10**12, at_once=16)
    held = own["x"].nbytes + shared["row"].nbytes  # lies there already, so that it is no more to be found
    budget = (peak_bytes(whole) - held) // 3
    chunked = compile_members(_wide, own, shared, available=budget, at_once=16)
    assert peak_bytes(chunked) - held <= budget
    np.testing.assert_allclose(chunked(own, shared), whole(own, shared))
    turns = compile_members(_wide, own, shared, available=10**12)
    assert peak_bytes(turns) < peak_bytes(chunked)  # a CPU takes one at a time
    np.testing.assert_allclose(turns(own, shared), whole(own, shared), rtol=1e-5)
    with pytest.raises(UserError, match="one member at a time"):
        compile_members(_wide, own, shared, available=10)


def test_the_rate_table_is_the_schedule_itself():
    for schedule in SCHEDULES:
        optimizer = AdamW(0.3, schedule, warmup=0.4)
        np.testing.assert_allclose(optimizer.rates(10), [optimizer.rate(10)(t) for t in range(10)], rtol=1e-6)


def test_turns_are_halved_until_the_compiler_takes_them_and_then_fitted_to_the_memory():
    def needed(most):
        return lambda members: None if members > most else 10 * members

    assert most_that_fit(needed(8), 8, 100) == 8
    assert most_that_fit(needed(3), 9, 100) == 3
    assert most_that_fit(needed(8), 8, 45) == 4
    assert most_that_fit(needed(1), 8, 100) == 1
    for most, available in ((0, 100), (8, 5)):
        with pytest.raises(UserError, match="one member at a time"):
            most_that_fit(needed(most), 8, available)

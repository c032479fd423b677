from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.outer.replay import Drawn, Pool, draw, empty, keep
from immunax.outer.simulation import SimulatedAttack

SIZE = 3


def _attack(number):
    return SimulatedAttack(jnp.full(2, number, jnp.int32), jnp.int32(number), member=jax.random.key(number))


@cache
def _compiled():
    return jax.jit(keep)


def _reference(slots, number, hardness, slot):
    """The pool as a list of (attack, hardness) pairs, None where empty."""
    finite, slots = np.isfinite(hardness), list(slots)
    if slot is not None:
        slots[slot] = (number, hardness) if finite else None
    elif finite:
        easiest = min(range(SIZE), key=lambda i: -np.inf if slots[i] is None else slots[i][1])
        if slots[easiest] is None or hardness > slots[easiest][1]:
            slots[easiest] = (number, hardness)
    return slots


_HARDNESS = st.one_of(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(-5, 5).map(float))


@given(st.lists(st.tuples(_HARDNESS, st.none() | st.integers(0, SIZE - 1)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_pool_keeps_what_a_list_of_pairs_would(events):
    pool, slots = empty(_attack(0), SIZE), [None] * SIZE
    for number, (hardness, slot) in enumerate(events, 1):
        if slot is not None and slots[slot] is None:
            slot = None
        if slot is not None:
            number = slots[slot][0]
        drawn = Drawn(_attack(number), jnp.int32(-1 if slot is None else slot))
        pool = _compiled()(pool, drawn, jnp.float32(hardness))
        slots = _reference(slots, number, hardness, slot)
    assert np.isfinite(pool.hardness).tolist() == [each is not None for each in slots]
    words = jax.random.key_data(pool.attacks.member)
    for i, each in enumerate(slots):
        if each is not None:
            assert float(pool.hardness[i]) == each[1]
            assert (int(pool.attacks.checks[i]), pool.attacks.harmful[i].tolist()) == (each[0], [each[0]] * 2)
            np.testing.assert_array_equal(words[i], jax.random.key_data(jax.random.key(each[0])))


def test_kept_attacks_are_drawn_by_the_chance_and_evenly_and_an_empty_slot_never():
    pool = Pool(jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_attack, (1, 2, 3))), jnp.array([0, -jnp.inf, -9]))
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda key: draw(pool, _attack(7), 0.4, key)))(keys)
    share = [float((drawn.slot == slot).mean()) for slot in (-1, 0, 1, 2)]
    np.testing.assert_allclose(share, [0.6, 0.2, 0.0, 0.2], atol=0.04)
    np.testing.assert_array_equal(drawn.attack.checks, np.array([1, 2, 3, 7])[drawn.slot])


def test_an_empty_pool_gives_the_fresh_attack():
    drawn = jax.jit(lambda key: draw(empty(_attack(1), SIZE), _attack(7), 1, key))(jax.random.key(0))
    assert (int(drawn.slot), int(drawn.attack.checks)) == (-1, 7)

"""What is held and only read has the dtype of the computation; what is kept, merged and given away has all bits."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.data.batches import stack
from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.defenses.rmu import Rmu
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.defenses.tar import Tar
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import Training, begin, computed, exact, outer_step, released

MODEL = Model(small.CONFIG)
HALF = replace(MODEL, dtype="bfloat16")
DATA = SimulatedAttack(
    harmful=stack([small.batch(seed, 4) for seed in (10, 11)]),
    checks=stack([small.batch(20, 5)]),
    safe_checks=stack([small.batch(30, 3)]),
)
BATCH = StreamBatch(small.batch(1, 5), small.batch(2, 5), small.batch(3, 4), DATA)
ALL = Mixture(safe=3, harmful=3, retain=3, paired=True, simulation=Simulation(2, 3, check=3, paired=True))
ADAPTERS, WHOLE = LoraSpec(2, targets=("q_proj", "down_proj")), Attacker(Sgd(), (0.1,))
# No weight lies on the grid of bfloat16.
START = jax.tree.map(lambda leaf: leaf * 1.0037, small.params(model=MODEL))
RMU, ADAPTED = Rmu(layer=1, trained_layers=1, mixture=ALL), Training(steps=2, optimizer=AdamW(1e-2), lora=ADAPTERS)
PLAIN = replace(ADAPTED, lora=None)


def _dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def _run(defense, training, change=lambda state: state):
    state, seen = change(begin(HALF, START, defense, training, BATCH)), []
    for _ in range(2):
        state, metrics = outer_step(HALF, defense, training, state, BATCH)
        seen.append(metrics)
    return state, seen


def _same(*trees):
    jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.mark.parametrize(
    ("defense", "training"),
    [(SafetyTuning(ALL), ADAPTED), (CircuitBreakers((1, 2), mixture=ALL), ADAPTED), (RMU, PLAIN)],
    ids=["safety_tuning, adapters", "circuit_breakers, adapters", "rmu"],
)
def test_copies_of_what_is_held_change_no_bit_of_any_step_and_what_is_released_is_made_of_the_weights(
    defense, training
):
    state, seen = _run(defense, training)
    held = state.train.held if training.lora is None else state.train.held.base
    assert _dtypes(held["layers"]["self_attn"]["q_proj"]) == {"bfloat16"}
    assert _dtypes(held["norm"]) == {"float32"}
    masters, same = _run(defense, training, lambda state: exact(HALF, defense, training, state, _copied(START)))
    assert _dtypes(masters.train.held if training.lora is None else masters.train.held.base) == {"float32"}
    _same((state.train.trained, seen), (masters.train.trained, same))
    weights = released(HALF, defense, training, state, START)
    assert _dtypes(weights) == {"float32"}
    _same(weights, released(HALF, defense, training, masters, START))
    for path, leaf in jax.tree_util.tree_leaves_with_path(START):
        name, new = jax.tree_util.keystr(path), _at(weights, path)
        if training.lora is not None and any(each in name for each in ADAPTERS.targets):
            a, b = (np.asarray(_at(state.train.trained, path[:-1])[each], np.float64) for each in "ab")
            np.testing.assert_allclose(new, np.asarray(leaf, np.float64) + ADAPTERS.scale * a @ b, rtol=0, atol=2e-7)
        elif "down_proj" not in name:
            np.testing.assert_array_equal(new, leaf)
    again = computed(HALF, defense, training, exact(HALF, defense, training, state, START), START)
    _same((again.train.trained, again.train.held), (state.train.trained, state.train.held))
    shared = {id(leaf) for leaf in jax.tree.leaves(again)} & {id(leaf) for leaf in jax.tree.leaves(START)}
    assert not shared


def _copied(tree):
    return jax.tree.map(jnp.copy, tree)


def _at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


def test_below_adapters_that_a_simulated_attacker_merges_all_bits_are_held():
    defense = Tar(WHOLE, mixture=ALL)
    assert _dtypes(begin(HALF, START, defense, ADAPTED, BATCH).train.held.base) == {"float32"}


def test_a_reference_is_remembered_as_it_is_read():
    for defense in (
        CircuitBreakers((1, 2), mixture=ALL),
        Tar(WHOLE, mixture=ALL),
        Tar(WHOLE, reference="base", mixture=ALL),
    ):
        carried = begin(HALF, START, defense, PLAIN, BATCH, START).defense
        kernels = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(carried)
            if "kernel" in jax.tree_util.keystr(path)
        ]
        assert kernels
        assert _dtypes(kernels) == {"bfloat16"}

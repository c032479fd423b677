"""What moves in a run, and what may not: every defense on adapters, and defenses of a few layers under weight decay."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import streams

from immunax.data.batches import stack
from immunax.defenses.adversarial_loss import AdversarialLoss
from immunax.defenses.booster import Booster
from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.defenses.ctrap import CTRAP
from immunax.defenses.lat import Lat
from immunax.defenses.mlac import Mlac
from immunax.defenses.pretraining import Pretraining
from immunax.defenses.random_mapping import RandomMapping
from immunax.defenses.rep_noise import RepNoise
from immunax.defenses.rmu import Rmu
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.defenses.seam import Seam
from immunax.defenses.sophon import Sophon
from immunax.defenses.t_vaccine import TVaccine
from immunax.defenses.tar import Tar
from immunax.defenses.vaccine import Vaccine
from immunax.inner.estimators import MixedMode, Unrolled
from immunax.inner.optimizers import AdamW, Sgd
from immunax.inner.trainable import Adapters, at_step
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.attacker import Attacker
from immunax.outer.attacker_population import AttackerKind, AttackerPopulation
from immunax.outer.defense import Mixture, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import Training, begin, outer_step, released

MODEL = Model(replace(small.CONFIG, n_layers=2))
WEIGHTS = small.params(model=MODEL)
DATA = SimulatedAttack(
    harmful=stack([small.batch(seed, 4) for seed in (10, 11)]),
    checks=stack([small.batch(20, 5)]),
    safe_checks=stack([small.batch(30, 3)]),
)
BATCH = StreamBatch(small.batch(1, 5), small.batch(2, 5), small.batch(3, 4), DATA)
SIMULATION = Simulation(2, 3, check=3, paired=True)
ADAPTERS = LoraSpec(2, targets=("q_proj", "down_proj"))
ALL = Mixture(safe=3, harmful=3, retain=3, paired=True, simulation=SIMULATION)
WHOLE = Attacker(Sgd(), (0.1,))
CASES = {
    "adversarial_loss": AdversarialLoss(mixture=ALL),
    "booster": Booster(mixture=ALL),
    "circuit_breakers": CircuitBreakers((1, 2), mixture=ALL),
    "ctrap": CTRAP(5, mixture=ALL),
    "lat": Lat((0, 1), inner_steps=2, mixture=ALL),
    "mlac, whose attacker tunes adapters": Mlac(replace(WHOLE, lora=ADAPTERS, estimator=MixedMode()), mixture=ALL),
    "pretraining": Pretraining(3),
    "random_mapping": RandomMapping(mixture=ALL),
    "rep_noise": RepNoise(mixture=ALL),
    "rmu": Rmu(layer=1, mixture=ALL),
    "safety_tuning": SafetyTuning(ALL),
    "seam": Seam(mixture=ALL),
    "sophon, against a population": Sophon(
        AttackerPopulation({"a": AttackerKind(Sgd(), (0.1, 0.2)), "b": AttackerKind(Sgd(), (0.1, 0.2), ADAPTERS)}),
        mixture=ALL,
    ),
    "t_vaccine": TVaccine(active=1, mixture=ALL),
    "tar": Tar(WHOLE, mixture=ALL),
    "vaccine": Vaccine(mixture=ALL),
}


def _two_steps(defense, training):
    """The state after them, the last scalars, and the weights that are released."""
    state = begin(MODEL, WEIGHTS, defense, training, BATCH)
    for _ in range(2):
        state, metrics = outer_step(MODEL, defense, training, state, BATCH)
    return state, metrics, released(MODEL, defense, training, state, WEIGHTS)


def _moved(weights):
    """The paths of weights that are not bit for bit those of the start."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(weights), jax.tree.leaves(WEIGHTS), strict=True)
        if (np.asarray(new) != np.asarray(old)).any()
    }


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] if "," in each else []) for each in CASES]
)
def test_every_defense_trains_adapters_with_moments_of_those_alone(name):
    training = Training(steps=2, optimizer=AdamW(1e-2, weight_decay=0.1), lora=replace(ADAPTERS, dropout=0.1))
    state, metrics, weights = _two_steps(CASES[name], training)
    assert np.isfinite([float(value) for value in jax.tree.leaves(metrics)]).all()
    assert not _moved(state.train.held.base)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.defense)) < 100
    factors = state.train.trained["layers"]
    assert all(leaf["b"].any() for leaf in (factors["self_attn"]["q_proj"], factors["mlp"]["down_proj"]))
    assert _moved(weights) == {"layers.self_attn.q_proj.kernel", "layers.mlp.down_proj.kernel"}
    largest = max(leaf.size for leaf in jax.tree.leaves(state.train.trained))
    assert max(leaf.size for leaf in jax.tree.leaves(state.train.optimizer)) == largest


@pytest.mark.parametrize(
    ("defense", "trained"),
    [
        (Rmu(layer=1, trained_layers=1, mixture=ALL), {"layers.mlp.down_proj.kernel"}),
        (CircuitBreakers((1,), mixture=ALL), None),
        (TVaccine(active=1, mixture=ALL), None),
    ],
    ids=["rmu", "circuit_breakers", "t_vaccine"],
)
def test_what_a_defense_holds_does_not_move_by_weight_decay_and_has_no_moments(defense, trained):
    training = Training(steps=2, optimizer=AdamW(1e-2, weight_decay=0.1))
    state, _, weights = _two_steps(defense, training)
    moved = _moved(weights)
    assert all(path.startswith("layers.") for path in moved)
    assert moved == trained or (trained is None and "layers.mlp.down_proj.kernel" in moved)
    kernel, start = (tree["layers"]["mlp"]["down_proj"]["kernel"] for tree in (weights, WEIGHTS))
    if isinstance(defense, Rmu):
        np.testing.assert_array_equal(kernel[0], start[0])
    if isinstance(defense, CircuitBreakers):
        np.testing.assert_array_equal(kernel[1], start[1])
    count = sum(leaf.size for leaf in jax.tree.leaves(state.train.trained))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.train.optimizer))
    assert 2 * count <= moments < 2 * count + 20
    assert count < sum(leaf.size for leaf in jax.tree.leaves(WEIGHTS))


def test_a_simulated_step_of_adapters_with_dropout_passes_its_gradient_exactly():
    trainable = Adapters(LoraSpec(2, targets=("q_proj",), dropout=0.3))
    trained, held = trainable.split(streams.WEIGHTS, jax.random.key(0))
    trained, awake = jax.tree.map(lambda leaf: leaf + 0.1, trained), at_step(held, 3)

    def slope(estimator):
        defense = Booster(estimator=estimator, mixture=ALL)
        return jax.jit(
            jax.grad(
                lambda part: defense.loss(
                    streams.MODEL, trainable.join(part, awake), (), streams.BATCH, jax.random.key(1)
                )[0]
            )
        )(trained)

    for ours, theirs in zip(*(jax.tree.leaves(slope(each)) for each in (MixedMode(), Unrolled())), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    "lora", [None, replace(ADAPTERS, layers=(1,)), ADAPTERS], ids=["whole", "one layer", "adapters"]
)
@pytest.mark.parametrize("place", ["attention", "layer"])
def test_a_layer_that_is_not_drawn_stays_with_its_moments_although_it_moved_before(place, lora):
    defense = TVaccine(active=1, interval=1, refresh=9, place=place, mixture=ALL)
    training = Training(steps=9, optimizer=AdamW(1e-2, weight_decay=0.1), lora=lora)
    state = begin(MODEL, WEIGHTS, defense, training, BATCH)
    drawn = []
    for _ in range(6):
        before = jax.tree.map(np.array, (state.train.trained, state.train.optimizer))
        state, _ = outer_step(MODEL, defense, training, state, BATCH)
        active = np.asarray(state.defense.active)
        rows = [1] if lora is not None and lora.layers else [0, 1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.train.optimizer):
            _stayed(path, leaf, _at(before[1], path), active[rows], place)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.train.trained):
            moved = _stayed(path, leaf, _at(before[0], path), active[rows], place)
            assert moved or "['a']" in jax.tree_util.keystr(path)
        drawn.append(tuple(active))
    assert len(set(drawn)) == 2


def _at(tree, path):
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]


def _stayed(path, new, old, active, place):
    """Checks that the rows of layers that are not drawn are those before, and says whether the others moved."""
    if new.ndim < 2:  # a count, or rates by step
        return True
    frozen = ~active & (place == "layer" or "self_attn" in jax.tree_util.keystr(path))
    np.testing.assert_array_equal(np.asarray(new)[frozen], old[frozen], err_msg=jax.tree_util.keystr(path))
    return frozen.all() or (np.asarray(new)[~frozen] != old[~frozen]).any()

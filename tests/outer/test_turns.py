"""Optimizers that take turns over the parts of a defense."""

import jax
import numpy as np
import optax
import pytest
import streams

from immunax.data.batches import stack
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.defenses.sophon import Sophon
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.lora import LoraSpec
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import Training, begin, outer_step
from immunax.runtime.errors import UserError
from tests import small

DATA = SimulatedAttack(stack([small.batch(seed, 4) for seed in (10, 11)]), stack([small.batch(20, 5)]))
BATCH = streams.BATCH._replace(simulation=DATA)
MIXTURE = Mixture(safe=3, retain=3, simulation=Simulation(2, 3, check=3))
DEFENSE = Sophon(Attacker(Sgd(), (0.1,)), 0.7, 1.5, mixture=MIXTURE)
# As SOPHON's code has them: one clips at 0.5, the other nothing.
TURNS = {"reinforcement": AdamW(5e-3, max_grad_norm=None), "suppression": AdamW(3e-3, max_grad_norm=0.5)}
TRAINING = Training(steps=3, turns=TURNS)


pytestmark = pytest.mark.usefixtures("compile_fast")


def _steps(training, count):
    state, seen = begin(streams.MODEL, streams.WEIGHTS, DEFENSE, training, BATCH), []
    for _ in range(count):
        state, metrics = outer_step(streams.MODEL, DEFENSE, training, state, BATCH)
        seen.append(metrics)
    return state, seen


def test_two_adams_in_turn_equal_a_python_loop():
    state, seen = _steps(TRAINING, 3)
    assert (int(state.train.step), int(state.train.diverged_at)) == (3, -1)
    alone = (Sophon(DEFENSE.attacker, *weights, mixture=MIXTURE) for weights in ((0.7, 0.0), (0.0, 1.5)))
    rules = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3)), optax.adam(5e-3)
    parts = dict(zip(("suppression", "reinforcement"), zip(alone, rules, strict=True), strict=True))
    slopes = {
        name: jax.jit(jax.value_and_grad(lambda w, key, part=part: part.loss(streams.MODEL, w, (), BATCH, key)[0]))
        for name, (part, _) in parts.items()
    }
    key = begin(streams.MODEL, streams.WEIGHTS, DEFENSE, TRAINING, BATCH).train.key
    weights, states = streams.WEIGHTS, {name: rule.init(streams.WEIGHTS) for name, (_, rule) in parts.items()}
    for step in range(3):
        losses = []
        for name, (_, rule) in parts.items():
            loss, gradient = slopes[name](weights, jax.random.fold_in(key, step))
            np.testing.assert_allclose(seen[step][f"{name}/grad_norm"], optax.tree.norm(gradient), rtol=1e-3)
            updates, states[name] = rule.update(gradient, states[name], weights)
            weights, losses = optax.apply_updates(weights, updates), [*losses, loss]
        np.testing.assert_allclose(seen[step]["loss"], sum(losses), rtol=1e-5)
    moved = optax.tree.norm(optax.tree.sub(weights, streams.WEIGHTS))
    assert float(optax.tree.norm(optax.tree.sub(weights, state.train.trained))) < 1e-3 * float(moved)
    assert {"suppressed", "retain", "safe", "grad_norm"} <= set(seen[0])


def test_each_of_the_turns_has_moments_of_the_adapters_alone():
    training = Training(steps=2, turns=TURNS, lora=LoraSpec(2, targets=("q_proj",), dropout=0.1))
    state, _ = _steps(training, 0)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.train.trained))
    assert 4 * trained <= sum(leaf.size for leaf in jax.tree.leaves(state.train.optimizer)) < 4 * trained + 40


def test_turns_that_are_not_the_parts_of_the_defense_are_refused():
    with pytest.raises(UserError, match="Sophon expects one optimizer for each of suppression, reinforcement"):
        _steps(Training(turns={"suppression": Sgd()}), 0)
    with pytest.raises(UserError, match="SafetyTuning expects null, as it has no parts"):
        Training(turns=TURNS).takers(SafetyTuning(Mixture(safe=1)))
    assert Training().takers(DEFENSE) == {}

"""The defenses that simulate an attack of several steps, against objectives written out as Python loops."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from immunax.data.batches import stack
from immunax.defenses.mlac import Mlac
from immunax.defenses.random_mapping import RandomMapping, token_vectors
from immunax.defenses.sophon import Sophon
from immunax.defenses.tar import Tar, step_weights
from immunax.inner.estimators import MixedMode
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.lora import Adapted, LoraSpec, init
from immunax.outer import training
from immunax.outer.attacker import Attacker, switch
from immunax.outer.defense import Mixture, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.runtime.errors import UserError

KEY = jax.random.key(7)
DATA = SimulatedAttack(
    harmful=stack([small.batch(seed, 4) for seed in range(10, 14)]),
    checks=stack([small.batch(seed, 5) for seed in (20, 21)]),
    safe_checks=stack([small.batch(seed, 3) for seed in (30, 31)]),
    retain=stack([small.batch(seed, 4) for seed in range(40, 44)]),
)
BATCH = StreamBatch(safe=small.batch(1, 5), harmful=small.batch(2, 5), retain=small.batch(3, 4), simulation=DATA)
SIMULATION = Simulation(4, 3, checks=2, check=3, paired=True, mixed=True)
ATTACKER = Attacker(Sgd(), learning_rates=(0.5,))


def _at(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


def _log_probs(weights, batch):
    hidden = small.MODEL.apply(weights, batch.tokens, batch.segment_ids, batch.positions).hidden
    return small.answer_log_probs(weights.base if isinstance(weights, Adapted) else weights, hidden, batch)


def _nll(weights, batch):
    return -_log_probs(weights, batch).mean()


def _attacked(weights, exact):
    """The weights after inner steps 2 and 4 of clipped gradient descent at rate 0.5, of adapters where there are some."""
    ends, adapted = [], isinstance(weights, Adapted)
    for k in range(4):
        batch = _at(DATA.harmful, k)
        gradient = jax.grad(_nll)(weights if exact else jax.lax.stop_gradient(weights), batch)
        gradient = gradient.lora if adapted else gradient
        scale = 0.5 / jnp.maximum(1.0, optax.tree.norm(gradient))
        moved = weights.lora if adapted else weights
        moved = jax.tree.map(lambda at, slope, scale=scale: at - scale * slope, moved, gradient)
        weights = weights._replace(lora=moved) if adapted else moved
        ends += [weights] if k % 2 else []
    return ends


def _check(defense, reference, state=None, tolerance=2e-3):
    weights = small.params(1)
    state = defense.init(small.MODEL, small.params(0), BATCH, KEY) if state is None else state
    ours = jax.jit(jax.value_and_grad(lambda w: defense.loss(small.MODEL, w, state, BATCH, KEY)[0]))(weights)
    theirs = jax.jit(jax.value_and_grad(reference))(weights)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3)
    size = float(optax.tree.norm(theirs[1]))
    assert float(optax.tree.norm(optax.tree.sub(ours[1], theirs[1]))) < tolerance * size


@pytest.mark.slow  # its reference is a program of every step
def test_mlac_against_adapters_equals_a_python_loop_whose_gradient_passes_through_every_step():
    lora = LoraSpec(2, targets=("up_proj", "o_proj"))
    attacker = replace(ATTACKER, lora=lora, estimator=MixedMode())
    defense = Mlac(attacker, 0.3, mixture=Mixture(safe=3, retain=3, simulation=SIMULATION))
    lora_key = jax.random.split(KEY, 3)[2]

    def reference(weights):
        start = init(lora_key, weights, lora)
        attacked = sum(_nll(end, _at(DATA.checks, s)) for s, end in enumerate(_attacked(start, exact=True))) / 2
        return _nll(weights, BATCH.safe) + _nll(weights, BATCH.retain) - 0.3 * attacked

    _check(defense, reference)


def _drift(weights, start):
    batch = BATCH.retain
    now, then = (
        small.MODEL.apply(each, batch.tokens, batch.segment_ids, batch.positions, capture=True).residuals
        for each in (weights, start)
    )
    rows, columns = np.nonzero(batch.segment_ids)
    return jnp.linalg.norm((now - then)[:, rows, columns], axis=-1).mean()


def test_tar_with_entropy_equals_a_python_loop():
    mixture = Mixture(retain=3, simulation=SIMULATION)
    defense = Tar(ATTACKER, "entropy", decay=0.2, scale=4.0, representation=0.5, mixture=mixture)

    def negative_entropy(weights, batch):
        hidden = small.MODEL.apply(weights, batch.tokens, batch.segment_ids, batch.positions).hidden
        rows, places = np.nonzero(batch.answer_weight)
        logits = hidden[rows, batch.answer_index[rows, places]] @ weights["embed_tokens"]["embedding"].T
        p = jax.nn.softmax(logits)
        return (p * jnp.log(p)).sum(-1).mean()

    def reference(weights):
        early, last = _attacked(weights, exact=False)
        resist = np.exp(-0.4) * negative_entropy(early, _at(DATA.checks, 0)) + negative_entropy(
            last, _at(DATA.checks, 1)
        )
        return 4.0 * resist + _nll(weights, BATCH.retain) + 0.5 * _drift(weights, small.params(0))

    _check(defense, reference)


def test_an_attacker_turns_to_harmful_data_at_once_or_by_chance_after_a_share_of_his_steps():
    keys = jax.random.split(KEY, 4000)
    turns = np.asarray(jax.jit(jax.vmap(lambda key: switch(key, 64, 0.33)))(keys))
    late = turns[turns > 0]
    assert len(late) / 4000 == pytest.approx(0.33, abs=0.03)
    # Beta(6, 3) has the mean 2/3; rounding down takes half a step.
    assert late.mean() == pytest.approx(64 * 2 / 3 - 0.5, abs=1.0)


def test_tar_keeps_the_model_that_was_loaded_where_it_is_the_reference_and_the_start_where_preferences_need_it():
    def kept(resistance, base):
        defense = Tar(ATTACKER, resistance, reference="base", mixture=Mixture(retain=3, simulation=SIMULATION))
        return training.begin(small.MODEL, small.params(1), defense, training.Training(), BATCH, base).defense

    state = kept("dpo", small.params(0))
    jax.tree.map(np.testing.assert_array_equal, tuple(state), (small.params(1), small.params(0)))
    state = kept("entropy", None)
    assert state.start is None
    jax.tree.map(np.testing.assert_array_equal, state.base, small.params(1))


def test_random_mapping_equals_a_loop_over_tokens():
    defense = RandomMapping(0.4, mixture=Mixture(harmful=3, retain=3))
    vectors = token_vectors(KEY, jnp.arange(small.CONFIG.vocab_size), small.CONFIG.d_model)

    def reference(weights):
        batch = BATCH.harmful
        residuals = small.MODEL.apply(weights, batch.tokens, batch.segment_ids, batch.positions, capture=True).residuals
        rows, columns = np.nonzero(batch.segment_ids)
        hidden, random = residuals[:, rows, columns], vectors[batch.tokens[rows, columns]]
        norms = jnp.linalg.norm(hidden, axis=-1) * jnp.linalg.norm(random, axis=-1)
        return _nll(weights, BATCH.retain) + 0.4 * (1 - jnp.abs((hidden * random).sum(-1) / norms)).mean()

    _check(defense, reference)


@pytest.mark.parametrize(
    ("defense", "metric"),
    [
        (
            Mlac(
                replace(ATTACKER, estimator=MixedMode()), 1.0, mixture=Mixture(safe=3, retain=3, simulation=SIMULATION)
            ),
            "loss",
        ),
        (Sophon(ATTACKER, 5.0, mixture=Mixture(safe=3, retain=3, simulation=SIMULATION)), "suppressed"),
        (Tar(ATTACKER, mixture=Mixture(retain=3, simulation=SIMULATION)), "resist"),
        (RandomMapping(5.0, mixture=Mixture(harmful=3, retain=3)), "mapping"),
    ],
    ids=["mlac", "sophon", "tar", "random_mapping"],
)
def test_twenty_outer_steps_move_the_objective_the_right_way(defense, metric):
    run = training.Training(steps=20, optimizer=AdamW(3e-3))
    state = training.begin(small.MODEL, small.params(), defense, run, BATCH)
    values = []
    for _ in range(20):
        state, metrics = training.outer_step(small.MODEL, defense, run, state, BATCH)
        values.append(float(metrics[metric]))
    assert values[-1] < values[0] - 0.01 * abs(values[0])
    assert np.isfinite(values).all()


def test_the_checks_of_tar_weigh_more_towards_the_end():
    np.testing.assert_allclose(
        step_weights(64, 16, 0.0625)[jnp.array([0, 15])], [np.exp(0.0625 * (3 - 63)), 1.0], rtol=1e-5
    )


def test_what_a_bilevel_defense_cannot_do_without_is_named():
    with pytest.raises(UserError, match=r"simulation\.paired=true"):
        Tar(mixture=Mixture(retain=1, simulation=Simulation(4, 1)))
    with pytest.raises(UserError, match=r"simulation\.mixed=true"):
        Tar(replace(ATTACKER, retain_first=0.5), "entropy", mixture=Mixture(retain=1, simulation=Simulation(4, 1)))
    with pytest.raises(UserError, match="Did you mean 'entropy'"):
        Tar(resistance="entrpy")
    for make in (Mlac, Sophon, Tar):
        with pytest.raises(UserError, match=r"mixture\.simulation"):
            make(mixture=Mixture(safe=1, retain=1))
    with pytest.raises(UserError, match="learning_rates"):
        Attacker(learning_rates=())

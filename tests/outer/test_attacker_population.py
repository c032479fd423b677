from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
import streams
from scipy import stats

from immunax.data.batches import stack
from immunax.defenses.sophon import Sophon
from immunax.inner.losses import avoidance_loss
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.lora import LoraSpec
from immunax.outer.attacker import mean_along
from immunax.outer.attacker_population import AttackerKind, AttackerPopulation, DrawnAttacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import Training, begin, outer_step
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shard, shard_batch

KINDS = {
    "sgd_lora": AttackerKind(Sgd(), (0.1, 1.0), LoraSpec(2, targets=("up_proj",))),
    "adamw": AttackerKind(AdamW(eps_root=1e-16), (1e-3, 1e-1)),
}
POPULATION = AttackerPopulation(KINDS, pool=2, replay=0.75)
SIMULATION = Simulation(2, 3, check=3)
DEFENSE = Sophon(POPULATION, 5.0, mixture=Mixture(safe=3, retain=3, simulation=SIMULATION))
TRAINING = Training(steps=20, optimizer=AdamW(3e-3))


def _data(seed):
    return SimulatedAttack(stack([small.batch(seed + k, 4) for k in range(2)]), stack([small.batch(seed + 9, 5)]))


def _widened(tree):
    """Of eight rows instead of three, the rest padding."""
    return jax.tree.map(lambda leaf: np.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, 5), (0, 0)]), tree)


def _batch(seed):
    return streams.BATCH._replace(simulation=_data(seed))


def _begin():
    return begin(streams.MODEL, streams.WEIGHTS, DEFENSE, TRAINING, _batch(0))


def _step(state, batch):
    return outer_step(streams.MODEL, DEFENSE, TRAINING, state, batch)


def test_members_are_of_every_kind_and_their_rates_log_uniform_in_its_range_by_key():
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(POPULATION.member))
    members = draw(keys)
    assert list(POPULATION.kinds) == ["adamw", "sgd_lora"]
    for number, (lowest, highest) in enumerate([(1e-3, 1e-1), (0.1, 1.0)]):
        rates = np.asarray(members.learning_rate)[np.asarray(members.kind) == number]
        assert 0.45 < len(rates) / 4000 < 0.55
        assert rates.min() >= np.float32(lowest)
        assert rates.max() <= np.float32(highest)
        unit = np.log(rates / lowest) / np.log(highest / lowest)
        assert stats.kstest(unit, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(members.learning_rate, draw(keys).learning_rate)


def _sophons_term(attacker, member, weights):
    data = _data(0)._replace(member=member)
    return mean_along(attacker, streams.MODEL, weights, data, avoidance_loss, member.key)[0]


def test_loss_and_gradient_are_those_of_the_plain_attacker_of_that_kind_at_that_rate():
    ours = jax.jit(jax.value_and_grad(partial(_sophons_term, POPULATION), argnums=1))
    for number, rate in enumerate((0.02, 0.5)):
        member = DrawnAttacker(jnp.int32(number), jnp.float32(rate), streams.KEY)
        plain = replace(POPULATION.attackers()[number], learning_rates=(rate,))
        theirs = jax.jit(jax.value_and_grad(partial(_sophons_term, plain), argnums=1))(member, streams.WEIGHTS)
        value, gradient = ours(member, streams.WEIGHTS)
        np.testing.assert_allclose(value, theirs[0], rtol=1e-6)
        apart = optax.tree.norm(optax.tree.sub(gradient, theirs[1]))
        assert float(apart) < 1e-6 * float(optax.tree.norm(theirs[1]))


def test_a_replayed_attack_attacks_the_same_weights_as_it_did():
    state, seen = _begin(), {}
    for seed in range(16):
        again = jax.tree.map(jnp.copy, streams.WEIGHTS)
        state, metrics = _step(state._replace(train=state.train._replace(trained=again)), _batch(seed))
        rate = float(metrics["attacker/learning_rate"])
        now = [float(metrics[name]) for name in ("suppressed", "attacker/hardness", "attacker/kind")]
        assert bool(metrics["attacker/replayed"]) == (rate in seen)
        np.testing.assert_allclose(now, seen.setdefault(rate, now), rtol=1e-6)
    assert 2 <= len(seen) <= 12


def test_twenty_outer_steps_withstand_the_population_better():
    state, terms = _begin(), []
    for _ in range(20):
        state, metrics = _step(state, _batch(0))
        terms.append((float(metrics["suppressed"]), float(metrics["attacker/pool_hardness"])))
    assert np.isfinite(terms).all()
    assert np.mean(terms[-5:], 0)[0] < 0.9 * np.mean(terms[:5], 0)[0]
    assert terms[-1][1] < terms[2][1]


def test_a_restored_run_goes_on_bit_for_bit_with_its_pool(tmp_path):
    state = _begin()
    for seed in range(3):
        state, _ = _step(state, _batch(seed))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
        restored = checkpoints.restore(3, _begin())
    for seed in range(3, 6):
        state, expected = _step(state, _batch(seed))
        restored, metrics = _step(restored, _batch(seed))
        assert {name: float(value) for name, value in metrics.items()} == {
            name: float(value) for name, value in expected.items()
        }
    np.testing.assert_array_equal(restored.pool.attacks.harmful.tokens, state.pool.attacks.harmful.tokens)


def test_a_step_on_a_mesh_replays_the_attack_as_a_step_on_one_device_does():
    devices, batch, state = build(MeshSpec(fsdp=8)), _batch(3), _begin()
    for seed in range(3):
        state, _ = _step(state, _batch(seed))
    streamed = shard_batch(_widened(batch._replace(simulation=None)), devices)
    spread = streamed._replace(simulation=shard_batch(_widened(batch.simulation), devices, axis=1))
    many = begin(streams.MODEL, shard(state.train.trained, devices), DEFENSE, TRAINING, spread)

    def lie(new, like):
        return jax.device_put(np.asarray(new), like.sharding)

    member = state.pool.attacks.member
    attacks, like = (pool.attacks._replace(member=None) for pool in (state.pool, many.pool))
    attacks = jax.tree.map(lie, _widened(attacks), like)._replace(member=member)
    many = many._replace(train=many.train._replace(step=state.train.step), pool=state.pool._replace(attacks=attacks))
    many = jax.tree.map(jnp.copy, many)  # a step donates its state
    names = "suppressed", "attacker/hardness", "attacker/replayed", "attacker/pool_hardness"
    one, many = (_step(*each)[1] for each in ((state, batch), (many, spread)))
    assert bool(one["attacker/replayed"])
    np.testing.assert_allclose([float(many[name]) for name in names], [float(one[name]) for name in names], rtol=2e-3)


def test_a_population_makes_one_attack_a_step():
    with pytest.raises(UserError, match=r"trainer\.accumulate=2"):
        begin(streams.MODEL, streams.WEIGHTS, DEFENSE, replace(TRAINING, accumulate=2), _batch(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttackerPopulation({}), "at least one kind"),
        (lambda: replace(POPULATION, pool=0), r"attacker\.replay=0"),
        (lambda: replace(POPULATION, replay=1.5), r"attacker\.replay=1\.5"),
        (lambda: AttackerKind(Sgd(), (0.1, 0.01)), "lowest rate"),
        (lambda: replace(DEFENSE, attacker=replace(POPULATION, retain_first=0.5)), r"simulation\.mixed=true"),
    ],
)
def test_a_population_that_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()

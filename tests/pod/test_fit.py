from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from immunax.data.packing import Tokens, total
from immunax.defenses.mlac import Mlac
from immunax.defenses.rep_noise import RepNoise
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.defenses.tar import Tar
from immunax.inner.estimators import FirstOrder, MixedMode
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.config import DecoderConfig
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.row_share import largest
from immunax.outer.simulation import Simulation
from immunax.outer.training import Training, begin, outer_step
from immunax.pod.abstract_step import abstract_batch, abstract_state
from immunax.pod.advice import advise
from immunax.pod.chips import CHIPS
from immunax.pod.fit import compile_step, device_bytes, refused_memory
from immunax.pod.report import show, to_json
from immunax.runtime.mesh import MeshSpec, build, shard

MODEL = Model(DecoderConfig("llama", 64, 16, 32, 2, 4, 4, 8, 32), remat="full")
MESH = build(MeshSpec(data=1, fsdp=4, tensor=2))
TRAINING = Training(steps=3, max_length=8, optimizer=AdamW(learning_rate=1e-2))
TAR = Tar(Attacker(Sgd()), mixture=Mixture(retain=4, simulation=Simulation(2, 4, 1, 4, paired=True)))
ROWS = {"retain": Tokens(2, 4)}
REP_NOISE = RepNoise(mixture=Mixture(safe=4, harmful=4, retain=4, paired=True))


def shapes(defense, model=MODEL, devices=MESH, length=8):
    training = replace(TRAINING, max_length=length)
    batch = abstract_batch(defense.mixture, training, devices)
    return abstract_state(model, defense, training, batch, devices), batch


def filled(shapes):
    """Random tokens in the shapes of a batch, every example its own segment."""
    rng = np.random.default_rng(0)

    def one(path, leaf):
        name = path[-1].name
        if name in ("segment_ids", "answer_weight"):
            return np.ones(leaf.shape, leaf.dtype)
        ascending = np.broadcast_to(np.arange(leaf.shape[-1]), leaf.shape).astype(np.int32)
        return rng.integers(0, 64, leaf.shape).astype(np.int32) if name in ("tokens", "answer_label") else ascending

    arrays = jax.tree_util.tree_map_with_path(one, shapes)
    return jax.tree.map(lambda array, leaf: jax.device_put(array, leaf.sharding), arrays, shapes)


def test_the_abstract_state_is_that_of_a_run_with_every_copy_of_the_weights_split():
    state, batch = shapes(TAR)
    params = shard(jax.jit(MODEL.init)(jax.random.key(0)), MESH)
    real = begin(MODEL, params, TAR, TRAINING, batch)
    for abstract, array in zip(jax.tree.leaves(state), jax.tree.leaves(real), strict=True):
        assert (abstract.shape, abstract.dtype) == (array.shape, array.dtype)
        assert not array.committed or array.sharding.is_equivalent_to(abstract.sharding, array.ndim)
    kernels = sum(leaf.size for leaf in jax.tree.leaves(state.train.trained) if leaf.ndim > 1)
    norms = sum(leaf.size for leaf in jax.tree.leaves(state.train.trained)) - kernels
    # The start model that tar holds: every matrix on 8 devices, norms [L, D] and [D] whole.
    assert device_bytes(state.defense) < 4 * (kernels / 8 + 5 * 2 * 16)
    assert norms < kernels / 8


def test_a_step_on_a_mesh_does_what_it_does_on_one_device():
    state, batch = shapes(REP_NOISE)
    data, start = filled(batch), partial(_start, REP_NOISE)
    with jax.set_mesh(MESH):
        begun = jax.jit(start, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state))(data)
        split, ours = outer_step(MODEL, REP_NOISE, TRAINING, begun, data)
    alone = jax.tree.map(np.asarray, data)
    whole, theirs = outer_step(MODEL, REP_NOISE, TRAINING, jax.jit(start)(alone), alone)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, err_msg=name)
    for mine, other, abstract in zip(
        *map(jax.tree.leaves, (split.train.trained, whole.train.trained, state.train.trained)), strict=True
    ):
        np.testing.assert_allclose(mine, other, atol=2e-3)
        assert mine.sharding.is_equivalent_to(abstract.sharding, mine.ndim)


def _start(defense, data):
    return begin(MODEL, jax.jit(MODEL.init)(jax.random.key(0)), defense, TRAINING, data)


def test_a_compiled_step_aliases_its_state_and_multiplies_what_the_jaxpr_says():
    state, batch = shapes(SafetyTuning(Mixture(safe=4, retain=4)))
    fit = compile_step(MODEL, SafetyTuning(Mixture(safe=4, retain=4)), TRAINING, MESH, CHIPS["v5e"])
    assert fit.fits
    # XLA drops the arguments that it does not read.
    assert 0.5 * device_bytes((state, batch)) < fit.memory.arguments <= device_bytes((state, batch))
    assert fit.memory.peak < fit.memory.arguments + 1.1 * fit.memory.temporaries
    assert fit.recomputed > 0.1 * fit.flops
    assert fit.traffic.flops * 8 == pytest.approx(fit.flops + fit.recomputed, rel=0.15)
    assert set(fit.traffic.by_axis()) >= {"fsdp", "tensor"}


def test_a_step_fits_only_if_its_own_share_of_the_memory_is_at_most_all_of_it(capsys):
    defense, chip = SafetyTuning(Mixture(safe=4, retain=4)), CHIPS["v5e"]
    peak = compile_step(MODEL, defense, TRAINING, MESH, chip).memory.peak
    for least, fits in ((peak, True), (peak * 100 // 104, False)):
        small = replace(chip, hbm_bytes=least)
        fit = compile_step(MODEL, defense, TRAINING, MESH, small)
        record = to_json(fit, small, MESH, ROWS)
        assert record["fits"] == fits
        assert record["real_tokens"] == {"retain": 0.5, "all": 0.5}
        # A CPU's program has every collective alone.
        waited = sum(fit.traffic.sent.values()) / small.ici_bandwidth
        assert record["step_seconds"] >= 0.999 * (record["seconds"]["compute"] + waited)
        show("a step", fit, small, MESH, ROWS)
        shown = capsys.readouterr().out
        assert ("100% of" in shown, "does not fit" in shown) == (fits, not fits)
        assert "104%" not in shown
        assert bool(fit.refusal) != fits


def test_a_refusal_is_read_for_what_was_needed():
    words = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries ({}) exceeds ..."
    )
    memory = refused_memory(2**30, words.format("49.5G"))
    assert (memory.temporaries, memory.peak) == (int(49.5 * 2**30), int(50.5 * 2**30))
    used = refused_memory(
        2**30, "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.00M of 15.75G hbm."
    )
    assert (used.temporaries, used.peak) == (None, 2**30)


def best(defense, remat="full", devices=MESH, length=8):
    model = replace(MODEL, remat=remat)
    training = replace(TRAINING, max_length=length)
    return advise(model, defense, training, *shapes(defense, model, devices, length), devices)[0].option


def test_the_advice_follows_what_takes_the_memory():
    simulation = Simulation(16, 4, 1, 4)
    exact, first = (Attacker(AdamW(eps_root=1e-16), estimator=each) for each in (MixedMode(), FirstOrder()))
    many = Mixture(safe=4, retain=4, simulation=simulation)
    plain, long = SafetyTuning(Mixture(safe=4, retain=4)), SafetyTuning(Mixture(safe=64, retain=64))
    assert "compute.remat=full" in best(long, "none", length=64)
    assert "trainer.max_length" in best(long, length=64)
    assert "mesh.data=1 mesh.fsdp=4" in best(plain, devices=build(MeshSpec(data=4, tensor=2)))
    assert "more chips" in best(plain)
    assert "defense.attacker.lora" in best(Mlac(exact, mixture=many))
    savings = dict(advise(MODEL, Mlac(exact, mixture=many), TRAINING, *shapes(Mlac(exact, mixture=many)), MESH))
    # 1 + 16 states are alive with 16 steps, 1 + 8 with 8; adapters leave none.
    fewer = next(size for option, size in savings.items() if "simulation.steps=8" in option)
    assert fewer == pytest.approx(8 / 17 * next(size for option, size in savings.items() if "lora" in option))
    adapters = replace(exact, lora=LoraSpec(rank=2))
    assert "lora" not in best(Mlac(adapters, mixture=many))
    assert "more chips" in best(Mlac(first, mixture=many))


def test_adapters_take_moments_and_gradients_of_the_weights_off_a_device():
    defense, model = SafetyTuning(Mixture(safe=4, retain=4)), replace(MODEL, config=replace(MODEL.config, d_model=512))
    whole, batch = shapes(defense, model)
    training = replace(TRAINING, lora=LoraSpec())
    adapted = abstract_state(model, defense, training, batch, MESH)
    first, then = (device_bytes(state.train.trained) for state in (whole, adapted))
    savings = dict(advise(model, defense, TRAINING, whole, batch, MESH))
    # Two moments and a gradient of the weights, for the adapters and theirs.
    assert savings["a defender of adapters, trainer.lora"] == pytest.approx(3 * first - 4 * then, rel=0.01)
    assert not any("trainer.lora" in option for option, _ in advise(model, defense, training, adapted, batch, MESH))


def test_states_alive_in_an_inner_loop_follow_its_estimator():
    assert FirstOrder().states_alive(16, 4) == 1
    assert MixedMode().states_alive(16, 4) == 4 + 4
    assert MixedMode(remat="steps").states_alive(16, 4) == 16


def test_the_rows_that_a_mesh_forces_are_those_of_the_compiled_batch():
    mixture = Mixture(safe=3, harmful=3, retain=5, simulation=Simulation(4, 1, 2, 6, paired=True, mixed=True))
    ways = 4
    found = largest(mixture, ways)
    assert {name: tuple(each) for name, each in found.items()} == {
        "safe": (3, 4),
        "harmful": (3, 4),
        "retain": (5, 8),
        "simulation_attack": (8, 32),
        "simulation_checks": (24, 32),
    }
    batch = abstract_batch(mixture, TRAINING, MESH)
    computed = sum(leaf.size for leaf in jax.tree.leaves(jax.tree.map(lambda each: each.tokens, batch, is_leaf=_laid)))
    assert total(found.values()).shape * TRAINING.max_length == computed
    assert total(largest(REP_NOISE.mixture, 64).values()).share == 4 / 64
    assert total(largest(REP_NOISE.mixture, 2).values()).share == 1


def _laid(node):
    return hasattr(node, "tokens")

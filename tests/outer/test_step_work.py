from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.defenses.mlac import Mlac
from immunax.defenses.rmu import Rmu
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.inner.optimizers import AdamW
from immunax.models.flops import training_flops
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.simulation import Simulation
from immunax.outer.step_work import step_products, step_work
from immunax.outer.training import Training, begin, outer_step
from immunax.runtime.jaxpr_flops import matmul_flops

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
SPLIT = Split(
    safe=tuple(ask(f"how to {i}", f"no, not {i * 7}") for i in range(8)),
    harmful=tuple(ask(f"how to {i}", f"yes, take {i * 31} and {i}") for i in range(24)),
    retain=tuple(ask(f"what is {i}", f"it is {i}" * (1 + i % 3)) for i in range(8)),
)


def _begun(defense, training):
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training)
    return data, begin(MODEL, small.params(model=MODEL), defense, training, data.batch(0))


def _sizes(examples):
    return [(len(each.tokens), len(each.answer)) for each in examples]


@pytest.mark.parametrize(("accumulate", "lora"), [(1, None), (2, None), (1, LoraSpec(2))])
def test_a_step_is_one_gradient_step_on_every_example_of_its_streams(accumulate, lora):
    defense = SafetyTuning(Mixture(safe=3, retain=2))
    training = Training(steps=3, accumulate=accumulate, lora=lora)
    data, state = _begun(defense, training)
    batch = data.batch(2)
    parts = range(2 * accumulate, 3 * accumulate)
    read = [size for stream in data.streams.values() for part in parts for size in _sizes(stream.batch(part))]
    products = step_products(MODEL, defense, training, state, batch)
    found = step_work(MODEL, defense, training, batch, products)
    assert (found.steps, found.tokens) == (1, sum(tokens for tokens, _ in read))
    assert found.computed == accumulate * sum(each.rows * each.length for each in data.layouts.values())
    assert found.flops == pytest.approx(training_flops(MODEL.config, read, lora))
    assert found.flops < found.products


def test_the_steps_of_a_simulated_attack_and_its_checks_are_steps_too():
    attacker, simulation = Attacker(lora=LoraSpec(2)), Simulation(2, 3, checks=1, check=2, mixed=True)
    defense = Mlac(attacker=attacker, mixture=Mixture(safe=2, harmful=2, retain=2, simulation=simulation))
    data, _ = _begun(defense, training := Training(steps=2))
    batch = data.batch(1)
    own = [size for stream in data.streams.values() for size in _sizes(stream.batch(1))]
    drawn = _sizes(data.simulation.harmful.batch(1))
    attack, checks = drawn[:6], drawn[6:8]
    expected = training_flops(MODEL.config, [*own, *checks]) + training_flops(MODEL.config, attack, attacker.lora)
    found = step_work(MODEL, defense, training, batch, 0.0)
    assert found.flops == pytest.approx(expected)
    assert found.tokens == sum(tokens for tokens, _ in [*own, *attack, *checks])
    assert found.products == 0


def test_no_step_is_given_credit_for_layers_that_it_does_not_compute():
    defense, training = Rmu(alpha=1.0, mixture=Mixture(harmful=2, retain=2)), Training(steps=1)
    data, state = _begun(defense, training)
    products = step_products(MODEL, defense, training, state, data.batch(0))
    found = step_work(MODEL, defense, training, data.batch(0), products)
    # It has no logits, and the layers behind the one that it reads are not run.
    assert found.flops == found.products == products
    assert products < step_work(MODEL, defense, training, data.batch(0), 0.0).flops


def test_the_products_are_those_of_the_program_and_counting_them_traces_nothing_twice():
    defense, training = SafetyTuning(Mixture(safe=3, retain=2)), Training(steps=2, optimizer=AdamW(1e-3))
    data, state = _begun(defense, training)
    batch = jax.tree.map(jnp.asarray, data.batch(0))
    counted = []
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda name, *_, **more: counted.append((name, more))
    )
    try:
        products = step_products(MODEL, defense, training, state, batch)
        outer_step(MODEL, defense, training, state, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    traced = [more for name, more in counted if "jaxpr_trace" in name and "outer_step" in str(more)]
    assert len(traced) == 1
    again = jax.make_jaxpr(lambda state, batch: outer_step(MODEL, defense, training, state, batch))(
        begin(MODEL, small.params(model=MODEL), defense, training, batch), batch
    )
    assert products == matmul_flops(again)
    # Three products a matrix, on the whole shape with all of its attention and logits.
    whole = [(each.length, each.answers) for each in data.layouts.values() for _ in range(each.rows)]
    scores = sum(MODEL.config.n_layers * 24 * 2 * 3 * size**2 for size, _ in whole)
    np.testing.assert_allclose(products, training_flops(MODEL.config, whole) + scores, rtol=0.25)

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.defenses.adversarial_loss import AdversarialLoss
from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.defenses.lat import Lat
from immunax.defenses.rep_noise import RepNoise
from immunax.defenses.rmu import Rmu
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.defenses.t_vaccine import TVaccine
from immunax.defenses.vaccine import Vaccine
from immunax.inner.optimizers import AdamW, Sgd
from immunax.models.model import Model
from immunax.outer import training as outer
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.training import Training, begin, fit, outer_step
from immunax.runtime.errors import UserError

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
SPLIT = Split(
    safe=tuple(ask(f"how to {i}", f"no, not {i}") for i in range(8)),
    harmful=tuple(ask(f"how to {i}", f"yes, take {i} and {i}") for i in range(8)),
    retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(8)),
)
CASES = {
    "safety_tuning": (SafetyTuning(Mixture(safe=2, retain=2)), "safe", -1),
    "adversarial_loss": (AdversarialLoss(0.5, mixture=Mixture(safe=2, harmful=2)), "harmful", 1),
    "rep_noise": (RepNoise(mixture=Mixture(safe=2, harmful=2, paired=True)), "harmful_layers", 1),
    "rmu": (Rmu(alpha=1.0, mixture=Mixture(harmful=2, retain=2)), "forget", -1),
    "circuit_breakers": (CircuitBreakers(mixture=Mixture(harmful=2, retain=2)), "reroute", -1),
    "lat": (Lat(inner_steps=4, epsilon=0.5, mixture=Mixture(safe=2, harmful=2, retain=2, paired=True)), "toward", -1),
    "vaccine": (Vaccine(mixture=Mixture(safe=2, retain=2)), "perturbed", -1),
    "t_vaccine": (TVaccine(interval=3, refresh=6, mixture=Mixture(safe=2, harmful=1)), "perturbed", -1),
}


def _run(defense, training, log=lambda *_: None, stop=lambda _: False):
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training)
    params = jax.jit(MODEL.init)(jax.random.key(0))
    state = begin(MODEL, params, defense, training, data.batch(0))
    return data, fit(MODEL, defense, training, state, data.batch, log, stop)


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_move_the_objective_the_right_way(name):
    defense, term, sign = CASES[name]
    seen = []
    _run(defense, Training(steps=20, optimizer=AdamW(3e-3)), lambda step, scalars: seen.append(scalars))
    losses, terms = [s["loss"] for s in seen], [s[term] for s in seen]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert sign * (np.mean(terms[-3:]) - np.mean(terms[:3])) > 0


def test_a_step_is_optax_on_the_defenses_gradient_and_the_start_model_stays():
    defense, training = CASES["rep_noise"][0], Training(steps=3, optimizer=AdamW(1e-2, warmup=0.5))
    params = jax.jit(MODEL.init)(jax.random.key(0))
    kept = jax.tree.map(np.array, params)
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training)
    state = begin(MODEL, params, defense, training, data.batch(0))
    key = jax.random.fold_in(state.train.key, 0)
    optimizer = training.optimizer.build(3)
    gradient = jax.jit(jax.grad(lambda p: defense.loss(MODEL, p, (), data.batch(0), key)[0]))(params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    expected = optax.apply_updates(params, updates)
    state, metrics = outer_step(MODEL, defense, training, state, data.batch(0))
    np.testing.assert_allclose(state.train.trained["norm"]["scale"], expected["norm"]["scale"], rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-3)
    assert int(state.train.step) == 1
    jax.tree.map(np.testing.assert_array_equal, params, kept)


def test_a_run_that_stops_and_goes_on_logs_every_step_in_order_and_ends_with_the_same_bits():
    defense, training = CASES["safety_tuning"][0], Training(steps=7, optimizer=AdamW(1e-3))
    whole, parts = [], []
    _, (expected, last) = _run(defense, training, lambda *seen: whole.append(seen))
    data, (state, _) = _run(defense, training, lambda *seen: parts.append(seen), stop=lambda step: step == 3)
    assert (int(state.train.step), len(parts)) == (3, 3)
    state, scalars = fit(MODEL, defense, training, state, data.batch, lambda *seen: parts.append(seen))
    assert parts == whole
    assert [step for step, _ in whole] == list(range(1, 8))
    assert scalars == last == whole[-1][1]
    jax.tree.map(np.testing.assert_array_equal, state.train.trained, expected.train.trained)


def test_a_loss_that_is_not_finite_is_refused_by_its_step_and_that_step_is_never_logged():
    seen = []
    with pytest.raises(UserError, match=r"at outer step 2: lower its optimizer\.learning_rate"):
        _run(CASES["rep_noise"][0], Training(steps=9, optimizer=AdamW(1e30)), lambda *each: seen.append(each))
    assert [step for step, _ in seen] == [1]
    assert np.isfinite(list(seen[0][1].values())).all()


class _Scalar:
    """A step's scalar that tells when the host asks for it, and so waits for the step."""

    def __init__(self, events, step):
        self.events, self.step = events, step

    def __float__(self):
        self.events.append(("wait", self.step))
        return 0.0


def test_the_host_waits_for_no_step_before_the_next_one_is_on_its_way(monkeypatch):
    events, state = [], SimpleNamespace(train=SimpleNamespace(step=0))

    def step(model, defense, training, state, data):
        events.append(("dispatch", data))
        return state, dict.fromkeys(("loss", "grad_norm"), _Scalar(events, data))

    def batch(number):
        events.append(("pack", number))
        return number

    monkeypatch.setattr(outer, "outer_step", step)
    fit(MODEL, CASES["rmu"][0], Training(steps=4), state, batch, lambda *_: None)
    order = [event for place, event in enumerate(events) if event not in events[:place]]
    expected = [("pack", 0), ("dispatch", 0), ("pack", 1)]
    for number in range(1, 4):
        packed = [("pack", number + 1)] if number < 3 else []
        expected += [("dispatch", number), *packed, ("wait", number - 1)]
    assert order == [*expected, ("wait", 3)]


def test_accumulated_batches_are_one_step_by_the_mean_of_their_losses():
    defense, training = (
        CASES["adversarial_loss"][0],
        Training(steps=1, optimizer=Sgd(1.0, max_grad_norm=None), accumulate=3),
    )
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training)
    whole = data.batch(0)
    parts = [jax.tree.map(lambda leaf, i=i: np.split(leaf, 3)[i], whole) for i in range(3)]
    params = jax.jit(MODEL.init)(jax.random.key(0))
    slope = jax.jit(jax.value_and_grad(lambda p, part: defense.loss(MODEL, p, (), part, None)[0]))
    losses, gradients = zip(*(slope(params, part) for part in parts), strict=True)
    state, metrics = outer_step(MODEL, defense, training, begin(MODEL, params, defense, training, whole), whole)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    mean = optax.tree.scale(1 / 3, jax.tree.map(lambda *leaves: sum(leaves), *gradients))
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(mean), rtol=1e-4)
    apart = optax.tree.norm(optax.tree.sub(optax.tree.sub(params, mean), state.train.trained))
    assert float(apart) < 1e-4 * float(optax.tree.norm(mean))
    assert whole.safe.tokens.shape[0] == 3 * parts[0].safe.tokens.shape[0]


def test_budgets_below_one_are_refused():
    with pytest.raises(UserError, match=r"trainer\.steps"):
        Training(steps=0)

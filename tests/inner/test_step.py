import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax.inner.losses import answer_loss, answer_tokens
from immunax.inner.state import HEALTHY, begin
from immunax.inner.step import accumulated, scan_steps, slope_of, train_step
from immunax.inner.trainable import Adapters
from immunax.models.lora import LoraSpec
from tests import small

RNG = np.random.default_rng(0)


def _loss(weights, batch):
    return jnp.sum((batch["x"] @ weights["w"] - batch["y"]) ** 2)


def _batches(steps, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": jnp.asarray(rng.normal(size=(steps, 4, 3))), "y": jnp.asarray(rng.normal(size=(steps, 4)))}


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 7), st.sampled_from(["sgd", "adamw", "momentum"]), st.integers(0, 9))
def test_a_scan_equals_a_python_loop_of_optimizer_steps(steps, name, seed):
    optimizer = {"sgd": optax.sgd(0.01), "adamw": optax.adamw(0.05), "momentum": optax.sgd(0.01, momentum=0.9)}[name]
    batches, weights = _batches(steps, seed), {"w": jnp.asarray(RNG.normal(size=3))}
    after, metrics = scan_steps(slope_of(_loss), optimizer, begin(optimizer, weights), batches)
    state, expected = optimizer.init(weights), []
    for k in range(steps):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        value, gradient = jax.value_and_grad(_loss)(weights, batch)
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        expected.append((value, optax.tree.norm(gradient)))
    np.testing.assert_allclose(after.trained["w"], weights["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.stack([metrics["loss"], metrics["grad_norm"]], 1), expected, rtol=1e-5)
    assert (int(after.step), int(after.diverged_at)) == (steps, HEALTHY)


def test_two_halves_of_a_scan_are_the_whole():
    optimizer, batches = optax.adamw(0.1), _batches(6)
    start = begin(optimizer, {"w": jnp.ones(3)})
    whole, losses = scan_steps(slope_of(_loss), optimizer, start, batches)
    half, first = scan_steps(slope_of(_loss), optimizer, start, jax.tree.map(lambda leaf: leaf[:3], batches))
    rest, second = scan_steps(slope_of(_loss), optimizer, half, jax.tree.map(lambda leaf: leaf[3:], batches))
    jax.tree.map(np.testing.assert_array_equal, rest, whole)
    np.testing.assert_array_equal(jnp.concatenate([first["loss"], second["loss"]]), losses["loss"])


@pytest.mark.parametrize("ill", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_taken_nor_is_any_after_it(ill):
    def loss(weight, batch):
        # The root's slope at zero is not finite, where the loss is.
        spoilt = jnp.inf if ill == "loss" else jnp.sqrt(jnp.where(batch, weight - 1, 1.0))
        return (weight - 1) ** 2 + jnp.where(batch, spoilt, 0.0)

    optimizer, batches = optax.sgd(0.5), jnp.arange(5) == 2
    after, metrics = scan_steps(slope_of(loss), optimizer, begin(optimizer, jnp.float32(3.0)), batches)
    assert (int(after.diverged_at), int(after.step), bool(after.diverged)) == (2, 5, True)
    assert float(after.trained) == 1.0
    assert np.isfinite(metrics["loss"][2]) == (ill == "gradient")
    assert np.isnan(metrics["loss"][3:]).all()


def test_what_is_held_gets_no_gradient_no_moments_and_no_place_in_the_scan():
    model, params = small.MODEL, small.params()
    trainable, optimizer = Adapters(LoraSpec(2, targets=("q_proj",))), optax.adamw(0.1, weight_decay=0.5)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), small.batch(0, 4))
    slope_at = slope_of(lambda weights, batch: answer_loss(model, weights, batch), trainable)
    start = begin(optimizer, *trainable.split(params, jax.random.key(0)))
    assert len(jax.tree.leaves(start.optimizer)) == 1 + 2 * len(jax.tree.leaves(start.trained))
    traced = jax.make_jaxpr(lambda state: scan_steps(slope_at, optimizer, state, batches))(start)
    (scan,) = [each for each in traced.eqns if each.primitive.name == "scan"]
    carried = scan.invars[scan.params["num_consts"] :][: scan.params["num_carry"]]
    assert len(carried) == len(jax.tree.leaves(start._replace(held=None)))


def test_a_loss_may_give_metrics_beside():
    optimizer = optax.sgd(0.1)
    slope_at = slope_of(lambda weight, batch: (weight * batch, {"twice": 2 * weight}))
    state, metrics = train_step(slope_at, optimizer, begin(optimizer, jnp.float32(3.0)), jnp.float32(2.0))
    np.testing.assert_allclose([state.trained, metrics["loss"], metrics["twice"], metrics["grad_norm"]], [2.8, 6, 6, 2])


def test_the_slope_of_micro_batches_is_that_of_the_batch_though_they_differ_in_tokens():
    model, params, batch = small.MODEL, small.params(), small.batch(1, 4)
    assert len(set(np.asarray(batch.answer_weight.sum(axis=1)))) == 3

    def loss(weights, batch):
        value = answer_loss(model, weights, batch)
        return value, {"again": value}

    whole = jax.jit(slope_of(loss))(params, None, batch)
    parts = jax.jit(accumulated(slope_of(loss), 3, answer_tokens))(params, None, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), parts, whole)

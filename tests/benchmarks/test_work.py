"""What the cases compute: their data, and one program measured as every one is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerated.attention import IMPLEMENTATIONS, attention_work
from accelerated.catalogue import ATTENTIONS
from accelerated.examples import dense, packed, real_lengths
from accelerated.models import config_of, model_of
from accelerated.work import Work, facts, measure, random_weights

from immunax.data.packing import first_fit
from immunax.inner.losses import every_token
from immunax.models.kernels import choice
from immunax.stages.setup import Compute


def test_lengths_fill_rows_and_are_the_same_every_time():
    lengths = real_lengths(8, 512)
    assert lengths == real_lengths(8, 512)
    assert len(first_fit(lengths, 512)) == 8
    assert 0.93 < sum(lengths) / 4096 <= 1
    assert max(lengths) <= 512


def test_dense_rows_are_full_and_all_but_their_first_token_is_answer():
    batch = dense((3, 2, 8), 50, seed=1)
    assert batch.tokens.shape == (3, 2, 8)
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), batch, every_token(batch)))
    assert not np.array_equal(batch.tokens, dense((3, 2, 8), 50, seed=2).tokens)


def test_packed_rows_hold_every_example_and_learn_all_but_the_first_token_of_each():
    batch, lengths = packed(4, 64, 50)
    assert (batch.segment_ids > 0).sum() == sum(lengths)
    assert batch.answer_weight.sum() == sum(lengths) - len(lengths)
    assert batch.tokens.shape == (4, 64)


def test_random_weights_are_a_models_in_either_dtype_with_unit_norms():
    model = model_of({"shape": "tiny"}, "cpu")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    for dtype in ("float32", "bfloat16"):
        weights = random_weights(model, dtype)
        same = jax.tree.map(
            lambda one, other, dtype=dtype: one.shape == other.shape and one.dtype == dtype, weights, shapes
        )
        assert jax.tree.all(same)
    assert (weights["norm"]["scale"] == 1).all()
    assert 0.015 < float(weights["embed_tokens"]["embedding"].std()) < 0.025


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu", "rocm"])
@pytest.mark.parametrize("shape", ["1.1B", "organism"])
def test_models_are_computed_as_the_package_does_it_on_each_platform(shape, platform):
    for dtype in ("auto", "float32"):
        sizes = {"shape": shape} if dtype == "auto" else {"shape": shape, "dtype": dtype}
        assert model_of(sizes, platform) == Compute(dtype=dtype).model(config_of(shape), platform)


def test_implementations_of_attention_agree_forward_and_backward():
    sizes = {"rows": 2, "length": 160, "heads": 4, "kv_heads": 2, "head_dim": 8, "calls": 1}
    works = [attention_work(sizes, "cpu", f"immunax {name}") for name in ("xla", "blocks", "splash")]
    inputs = works[0].inputs(())
    found = [jax.tree.leaves(jax.jit(work.function)(*inputs)) for work in works]
    assert len(found[0]) == 4
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, same, atol=2e-5)


def test_every_implementation_of_the_package_is_a_side_of_the_case():
    assert set(IMPLEMENTATIONS) == {f"immunax {name}" for name in choice.ATTENTION} == set(ATTENTIONS)


def test_a_carried_state_goes_from_run_to_run_and_each_repeat_is_timed_once():
    def step(state, add):
        return state + add, {"at": state}

    work = Work(
        step,
        lambda: jnp.zeros(4),
        lambda weights: (weights, jnp.ones(4)),
        units=3,
        flops=7.0,
        calls=2,
        warm=1,
        details={"kind": "sum"},
        seen=lambda outputs: {"at": float(outputs[1]["at"][0])},
    )
    row = measure(work, 5)
    assert len(row["seconds"]) == 5
    assert (row["units"], row["flops"]) == (6, 14.0)
    assert row["details"] == {"kind": "sum", "at": 11.0}
    assert row["peak_bytes"] > 0


def test_inputs_that_are_not_carried_stay():
    def seen(outputs):
        return {"x": float(outputs[0][0])}

    work = Work(lambda x: (x + 1,), lambda: (), lambda _: (jnp.zeros(2),), 1, carried=False, seen=seen)
    assert measure(work, 3)["details"] == {"x": 1.0}


def test_flops_that_are_not_given_are_counted_from_what_is_traced():
    work = Work(lambda x: x, lambda: (), lambda _: (jnp.ones((4, 5)),), 1, counted=lambda x: x @ x.T)
    assert work.needed_flops(work.inputs(())) == 2 * 4 * 5 * 4


@pytest.mark.parametrize("name", ["device", "platform", "memory", "versions"])
def test_a_process_tells_its_device(name):
    assert facts()[name]

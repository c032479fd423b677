import jax
import jax.numpy as jnp
import numpy as np
import small

from immunax.models.flops import forward_flops, training_flops
from immunax.models.lora import LoraSpec

LENGTH, ANSWERS = 32, 8
LAYERS = small.CONFIG.n_layers
PARAMS = jax.eval_shape(small.MODEL.init, jax.random.key(0))


def test_the_projections_are_those_of_the_model():
    layers = PARAMS["layers"]
    kernels = {**layers["self_attn"], **layers["mlp"]}
    sizes = small.CONFIG.projections()
    assert {name: kernels[name]["kernel"].shape[1:] for name in sizes} == sizes


def test_a_trained_matrix_costs_three_products_and_a_frozen_one_two():
    forward = forward_flops(small.CONFIG, [(LENGTH, ANSWERS)])
    weights = LAYERS * (24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 40)
    attention = 2 * LAYERS * 24 * LENGTH**2
    assert forward == 2 * LENGTH * weights + attention + 2 * ANSWERS * 24 * 53
    assert training_flops(small.CONFIG, [(LENGTH, ANSWERS)]) == 3 * forward
    spec = LoraSpec(2, targets=("q_proj", "down_proj"))
    adapters = 6 * LENGTH * LAYERS * 2 * (24 + 24 + 40 + 24)
    assert training_flops(small.CONFIG, [(LENGTH, ANSWERS)], spec) == 2 * forward + attention + adapters


def test_the_compiler_counts_as_many_for_one_layer():
    # XLA counts the body of a loop once, and the masked half of attention too.
    tokens = jnp.ones((1, LENGTH), jnp.int32)
    apply = jax.jit(lambda params: small.MODEL.apply(params, tokens, tokens, jnp.arange(LENGTH)[None]).hidden)
    counted = apply.lower(PARAMS).compile().cost_analysis()["flops"]
    expected = forward_flops(small.CONFIG, [(LENGTH, 0)]) / LAYERS + 2 * 24 * LENGTH**2
    np.testing.assert_allclose(counted, expected, rtol=0.15)

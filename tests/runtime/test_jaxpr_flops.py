import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from immunax.runtime.jaxpr_flops import countable_flops, matmul_flops
from immunax.runtime.mesh import MeshSpec, build

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
ONCE = 2 * 3 * 4 * 5


def count(function, *inputs):
    return matmul_flops(jax.make_jaxpr(function)(*inputs))


def test_a_product_costs_two_operations_for_each_multiplication():
    assert count(jnp.matmul, A, B) == ONCE
    assert count(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))) == 7 * ONCE


def test_a_scan_counts_as_often_as_it_runs():
    def run(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ jnp.ones((4, 4))), None), x, length=6)[0]

    assert count(run, A) == 6 * 2 * 3 * 4 * 4


def test_rematerialisation_adds_the_forward_pass_once_more():
    def loss(keep, x, y):
        return keep(lambda a, b: jnp.sin(a @ b).sum())(x, y)

    gradient = jax.grad(lambda x, y: loss(lambda f: f, x, y), (0, 1))
    again = jax.grad(lambda x, y: loss(jax.checkpoint, x, y), (0, 1))
    assert count(gradient, A, B) == 3 * ONCE
    assert count(again, A, B) == 4 * ONCE


def test_a_conditional_counts_as_its_dearest_branch():
    assert count(lambda x, y: jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: x @ y + x @ (2 * y)), A, B) == 2 * ONCE


def test_products_inside_custom_gradients_jits_and_shards_count_on_every_device():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert count(jax.jit(product), A, B) == ONCE
    assert count(jax.grad(lambda x, y: product(x, y).sum(), (0, 1)), A, B) == 3 * ONCE
    mesh = build(MeshSpec(data=8))
    sharded = jax.shard_map(lambda x: x @ B, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    assert count(sharded, jnp.ones((24, 4))) == 8 * ONCE


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="unknown length"):
        count(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ jnp.ones((4, 4)), x), A)


def test_a_loop_whose_length_is_an_input_counts_as_many_turns_as_it_is_told():
    def run(x, turns):
        return jax.lax.fori_loop(0, turns, lambda _, value: value @ value, x)

    jaxpr = jax.make_jaxpr(run)(jnp.ones((4, 4)), 7)
    assert matmul_flops(jaxpr, turns=3) == 3 * 2 * 4**3
    with pytest.raises(ValueError, match="unknown length"):
        matmul_flops(jaxpr)
    assert countable_flops(jaxpr) == 0
    assert countable_flops(jaxpr, turns=3) == 3 * 2 * 4**3


def _blocks(kernel):
    """A product of [32, 16] by [16, 8], eight rows at once."""
    return pl.pallas_call(
        kernel,
        jax.ShapeDtypeStruct((32, 8), jnp.float32),
        grid=(4,),
        in_specs=[pl.BlockSpec((8, 16), lambda i: (i, 0)), pl.BlockSpec((16, 8), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((8, 8), lambda i: (i, 0)),
    )


def test_a_kernel_counts_once_a_block_of_its_grid():
    def kernel(x, y, out):
        out[...] = x[...] @ y[...]

    assert count(_blocks(kernel), jnp.ones((32, 16)), jnp.ones((16, 8))) == 2 * 32 * 16 * 8


def test_a_loop_of_unknown_length_in_a_kernel_is_refused_whatever_turns_another_one_takes():
    def kernel(x, y, out):
        turns = x[0, 0].astype(jnp.int32)
        out[...] = jax.lax.fori_loop(0, turns, lambda _, carry: carry + x[...] @ y[...], jnp.zeros((8, 8)))

    jaxpr = jax.make_jaxpr(_blocks(kernel))(jnp.ones((32, 16)), jnp.ones((16, 8)))
    with pytest.raises(ValueError, match="unknown length"):
        matmul_flops(jaxpr, turns=3)


def test_the_attention_of_cudnn_is_two_products_forwards_and_five_more_backwards(monkeypatch):
    # It traces anywhere, but for its look at the library.
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda *_, **__: True)
    monkeypatch.setattr(cudnn, "check_is_flash_attention", lambda *_, **__: None)
    q, k, v = (jnp.ones((2, 64, heads, 16), jnp.bfloat16) for heads in (4, 2, 2))

    def attended(q, k, v):
        return cudnn.dot_product_attention(q, k, v, mask_type=cudnn.MaskType.CAUSAL).astype(jnp.float32).sum()

    once = 2 * 2 * 4 * 64 * 64 * 16  # a product of the scores, [2, 4, 64, 64], with heads of 16
    assert count(attended, q, k, v) == 2 * once
    assert count(jax.grad(attended, (0, 1, 2)), q, k, v) == 7 * once

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from immunax.models.cross_entropy import (
    gather_columns,
    token_divergence,
    token_entropy,
    token_nll,
    token_unlikelihood,
    weighted_nll,
)
from immunax.models.unembedding import Unembedding
from immunax.pod.hlo import parse
from immunax.pod.traffic import traffic
from immunax.runtime.jaxpr_flops import matmul_flops
from immunax.runtime.mesh import MeshSpec, build


def _case(shape, d_model=8, vocab=19, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    hidden = jax.random.normal(keys[0], (*shape, d_model))
    matrix = jax.random.normal(keys[1], (d_model, vocab))
    labels = jax.random.randint(keys[2], shape, 0, vocab)
    weights = jax.random.uniform(keys[3], shape) * (labels % 3 > 0)
    return hidden, matrix, labels, weights


def _logits(hidden, matrix, cap=None):
    logits = hidden @ matrix
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def _naive(hidden, matrix, labels, weights, cap=None):
    log_probs = jax.nn.log_softmax(_logits(hidden, matrix, cap), axis=-1)
    return -(weights * jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]).sum()


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 11), st.integers(1, 40), st.integers(0, 99), st.sampled_from([None, 2.0, 30.0])
)
def test_loss_and_both_gradients_equal_the_naive_ones_for_any_chunk_and_cap(layers, count, chunk, seed, cap):
    hidden, matrix, labels, weights = _case((layers, count), seed=seed)
    fused, naive = (
        jax.jit(jax.value_and_grad(lambda h, m, loss=loss: 2.5 * loss(h, m), (0, 1)))(hidden, matrix)
        for loss in (
            lambda h, m: weighted_nll(h, Unembedding(m, cap, chunk), labels, weights),
            lambda h, m: _naive(h, m, labels, weights, cap),
        )
    )
    for ours, theirs in zip(jax.tree.leaves(fused), jax.tree.leaves(naive), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_frozen_matrix_costs_no_gradient_product():
    hidden, matrix, labels, weights = _case((64,), d_model=32, vocab=128)

    def flops(argnums):
        gradient = jax.jit(jax.grad(lambda h, m: weighted_nll(h, Unembedding(m, chunk=64), labels, weights), argnums))
        return gradient.lower(hidden, matrix).compile().cost_analysis()["flops"]

    product = 2 * 64 * 32 * 128
    assert flops((0, 1)) - flops(0) == pytest.approx(product, rel=0.1)


def test_token_losses_are_the_naive_ones_and_sum_to_the_weighted_loss():
    hidden, matrix, labels, weights = _case((3, 7))
    unembedding = Unembedding(matrix, chunk=4)
    losses = token_nll(hidden, unembedding, labels)
    assert losses.shape == (3, 7)
    np.testing.assert_allclose((losses * weights).sum(), _naive(hidden, matrix, labels, weights), rtol=1e-5)
    np.testing.assert_allclose((losses * weights).sum(), weighted_nll(hidden, unembedding, labels, weights), rtol=1e-5)


def test_the_cap_of_the_logits_is_in_every_loss_and_its_gradient():
    hidden, matrix, labels, weights = _case((3, 7))

    def losses(h, m):
        given = Unembedding(m, 2.0, chunk=4)
        return (
            token_nll(h, given, labels),
            token_unlikelihood(h, given, labels),
            token_entropy(h, given),
            jax.nn.logsumexp(given.logits(h), axis=-1),
        )

    def naive(h, m):
        logits = _logits(h, m, 2.0)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        nll = -jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
        return nll, -jnp.log1p(-jnp.exp(-nll)), entropy, jax.nn.logsumexp(logits, axis=-1)

    def with_slopes(losses):
        return losses(hidden, matrix), jax.grad(lambda h, m: sum(jnp.vdot(weights, x) for x in losses(h, m)), (0, 1))(
            hidden, matrix
        )

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), with_slopes(losses), with_slopes(naive))


def test_columns_are_gathered_row_by_row_under_any_leading_axes():
    values = jnp.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    index = jnp.array([[0, 4], [1, 1], [3, 2]])
    picked = gather_columns(values, index)
    for layer in range(2):
        np.testing.assert_array_equal(picked[layer], gather_columns(values[layer], index))
        for row in range(3):
            np.testing.assert_array_equal(picked[layer, row], values[layer, row, index[row]])


def test_the_unlikelihood_is_minus_log_one_minus_p_in_float64_and_so_is_its_gradient():
    rng = np.random.default_rng(0)
    hidden, matrix = rng.normal(size=(5, 7)), rng.normal(size=(7, 11))
    labels = np.argmax(hidden @ matrix, axis=-1)
    hidden[0] *= 12  # p of the first label is 1 in float32

    def total(hidden, matrix):
        return token_unlikelihood(hidden, Unembedding(matrix, chunk=2), jnp.asarray(labels)).sum()

    value, (d_hidden, d_matrix) = jax.value_and_grad(total, (0, 1))(
        *(jnp.asarray(x, jnp.float32) for x in (hidden, matrix))
    )
    logits = hidden @ matrix
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    own = np.eye(11)[labels]
    others = (p * (1 - own)).sum(-1, keepdims=True)
    d_logits = p - p * (1 - own) / others
    np.testing.assert_allclose(value, -np.log(others).sum(), rtol=1e-4)
    np.testing.assert_allclose(d_hidden, d_logits @ matrix.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(d_matrix, hidden.T @ d_logits, rtol=1e-3, atol=1e-3)


def test_below_its_threshold_a_likelihood_adds_nothing_and_has_no_gradient():
    hidden, matrix, labels, _ = _case((3, 7))
    given = Unembedding(matrix, chunk=4)
    nll = token_nll(hidden, given, labels)
    cut = float(jnp.median(nll)) + 1e-3
    values, pull = jax.vjp(lambda h: token_unlikelihood(h, given, labels, threshold=-cut), hidden)
    whole = token_unlikelihood(hidden, given, labels)
    np.testing.assert_allclose(values, np.where(nll > cut, 0.0, whole), rtol=1e-6)
    np.testing.assert_array_equal(pull(jnp.ones_like(values))[0].any(axis=-1), nll <= cut)


def test_the_divergence_of_two_predictions_is_the_sum_over_the_vocabulary():
    (hidden, matrix, *_), (other, *_) = _case((3, 7)), _case((3, 7), seed=1)
    pair = Unembedding(matrix, chunk=4), Unembedding(2 * matrix, chunk=4)
    p, q = (jax.nn.softmax(each.logits(part)) for each, part in zip(pair, (hidden, other), strict=True))
    np.testing.assert_allclose(token_divergence((hidden, other), pair), (p * jnp.log(p / q)).sum(-1), rtol=1e-4)


def test_under_a_mesh_every_loss_and_gradient_is_the_same_and_each_device_computes_its_share():
    shape = (2, 4, 5)
    hidden, matrix, labels, weights = _case(shape)
    mesh = build(MeshSpec(data=2, fsdp=2, tensor=2))

    def all_losses(h, matrix):
        m = Unembedding(matrix, 3.0, chunk=4)
        parts = token_nll(h, m, labels), token_unlikelihood(h, m, labels), token_entropy(h, m)
        rows = sum((scale * part * weights).sum() for scale, part in zip((1.0, 0.3, 0.7), parts, strict=True))
        return weighted_nll(h, m, labels, weights) + rows, parts

    def run():
        return jax.jit(jax.value_and_grad(all_losses, (0, 1), has_aux=True))

    alone = run()(hidden, matrix)
    with jax.set_mesh(mesh):
        split = jax.device_put(hidden, NamedSharding(mesh, P(None, ("data", "fsdp"))))
        together = run().lower(split, matrix).compile()
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), together(split, matrix), alone)
    whole = matmul_flops(jax.make_jaxpr(run())(hidden, matrix))
    # Chunks are padded to a whole number of rows a device; a chunk on every device would be four times the work.
    assert traffic(parse(together.as_text()), dict(mesh.shape)).flops < 0.6 * whole


def test_the_output_projection_is_gathered_once_and_its_gradient_summed_once_however_many_chunks_there_are():
    mesh = build(MeshSpec(fsdp=4, tensor=2))
    hidden, matrix, labels, weights = _case((4, 64), vocab=32)

    def sent(chunk):
        def loss(h, m):
            return weighted_nll(h, Unembedding(m, chunk=chunk), labels, weights)

        with jax.set_mesh(mesh):
            rows = jax.device_put(hidden, NamedSharding(mesh, P(("data", "fsdp"))))
            stored = jax.device_put(matrix, NamedSharding(mesh, P("fsdp", "tensor")))
            program = jax.jit(jax.grad(loss, (0, 1))).lower(rows, stored).compile()
        return traffic(parse(program.as_text()), dict(mesh.shape)).by_axis()["fsdp"]

    # 1 chunk and 16; the scalar loss and the like are all that may differ.
    assert sent(1) < sent(64) + matrix.nbytes / 2

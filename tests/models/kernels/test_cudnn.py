"""What cuDNN is told, held against an interpreter of what it is documented to do with it; a GPU shows the rest."""

import inspect
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.kernels.attention_cases import (
    PATTERNS,
    SEGMENTS,
    alike,
    both,
    forward_over_reverse,
    inputs,
    layers,
    reverse_over_reverse,
    slope,
)

from immunax.data.packing import MOST_EXAMPLES
from immunax.models.attention import attention
from immunax.models.kernels import cudnn
from immunax.models.kernels.cudnn import MOST, binding

UNTOLD = 1e3  # stands in the places that the kernel does not write


def stretches_of(told, arrays):
    """Which tokens of the one long array ask, and which are asked, in each place ``[places, tokens]``, and its first."""
    query, key, _, _, queries, keys, q_offsets, kv_offsets, *_ = arrays
    first, of_keys = (
        (offsets // math.prod(each.shape[2:])).reshape(-1)[: queries.size, None]
        for each, offsets in ((query, q_offsets), (key, kv_offsets))
    )
    tokens = jnp.arange(math.prod(query.shape[:2]))
    asks, asked = (
        (tokens >= begins) & (tokens < begins + each.reshape(-1, 1))
        for begins, each in ((first, queries), (of_keys, keys))
    )
    return asks, asked


def attend(told, arrays, query, key, value):
    """Each place by itself: causal from its first token, which queries and keys share."""
    asks, asked = stretches_of(told, arrays)
    tokens = jnp.arange(asks.shape[1])
    back = tokens[:, None] - tokens
    near = (back >= 0) & (back < (told["sliding_window_length"] or math.inf))
    mask = near & (asks[:, :, None] & asked[:, None, :]).any(axis=0)
    one_row = (each.reshape(1, -1, *each.shape[2:]) for each in (query, key, value))
    return attention(*one_row, mask[None, None], told["scale"]).reshape(query.shape)


def _written(values, there):
    return jnp.where(there.any(axis=0).reshape(values.shape[:2])[:, :, None, None], values, UNTOLD)


class Forward:
    def bind(self, *arrays, **told):
        query, places = arrays[0], arrays[4].shape[1]
        out = _written(attend(told, arrays, *arrays[:3]), stretches_of(told, arrays)[0])
        # As the kernel itself, it has no derivative.
        return jax.lax.stop_gradient(out), jnp.zeros(
            (query.shape[0] * places, query.shape[2], query.shape[1]), jnp.float32
        )


class Backward:
    def bind(self, *arrays, **told):
        *given, _, _, d_out = arrays
        asks, asked = stretches_of(told, given)
        gradients = jax.vjp(partial(attend, told, given), *given[:3])[1](d_out)
        written = [_written(each, there) for each, there in zip(gradients, (asks, asked, asked), strict=True)]
        return jax.lax.stop_gradient(written)


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel's primitives replaced."""
    monkeypatch.setattr(binding, "_dot_product_attention_fwd_p", Forward())
    monkeypatch.setattr(binding, "_dot_product_attention_bwd_p", Backward())
    monkeypatch.setattr(binding, "check_compute_capability", lambda capability: True)


@pytest.mark.parametrize("name", ["plain", "window"])
def test_every_kind_of_row_reads_what_it_should(interpreted, name):
    *arrays, _ = inputs()
    fused, plain = both("cudnn", PATTERNS[name])
    alike(fused(*arrays), plain(*arrays))


@pytest.mark.parametrize("derivative", [slope, forward_over_reverse, reverse_over_reverse])
def test_derivatives_of_first_and_second_order_are_those_of_plain_attention(interpreted, derivative):
    *arrays, weight = inputs()
    fused, plain = both("cudnn", PATTERNS["plain"])
    alike(derivative(fused, weight)(*arrays), derivative(plain, weight)(*arrays))


@pytest.mark.parametrize("derivative", [slope, forward_over_reverse, reverse_over_reverse])
def test_derivatives_of_layers_in_a_scan_never_ask_the_kernel_for_its_own(interpreted, derivative):
    *arrays, weight = inputs()
    fused, plain = (layers(each) for each in both("cudnn", PATTERNS["plain"]))
    alike(jax.jit(derivative(fused, weight))(*arrays), jax.jit(derivative(plain, weight))(*arrays), 1e-4)


def test_a_second_derivative_of_members_is_each_ones_own(interpreted):
    query, key, value, weight = inputs()
    queries = jnp.stack([query, 2 * query])
    members = (
        jax.vmap(forward_over_reverse(layers(each), weight), (0, None, None))
        for each in both("cudnn", PATTERNS["plain"])
    )
    alike(*(each(queries, key, value) for each in members), 1e-4)


def test_members_of_a_population_are_each_computed_as_alone(interpreted):
    query, key, value, weight = inputs()
    queries = jnp.stack([query, 2 * query])
    members = (jax.vmap(slope(attend, weight), (0, None, None)) for attend in both("cudnn", PATTERNS["plain"]))
    alike(*(each(queries, key, value) for each in members))


def test_the_end_of_all_rows_stands_behind_the_last_stretch():
    rows, length = SEGMENTS.shape
    told = cudnn.read(jnp.asarray(SEGMENTS))
    ends = cudnn._offsets(told, 3).reshape(-1)[rows * MOST :]
    assert set(ends.tolist()) == {3 * rows * (length + length % 2)}


def test_a_row_of_as_many_examples_as_packing_allows_is_told_whole():
    assert MOST == MOST_EXAMPLES + 1  # and the padding behind them
    row = [*np.repeat(np.arange(1, MOST_EXAMPLES + 1), 2).tolist(), 0, 0]
    told = cudnn.read(jnp.array([row]))
    assert told.queries.tolist() == told.keys.tolist() == [[2] * MOST]
    assert told.begins.tolist() == [list(range(0, 2 * MOST, 2))]


def test_before_hopper_it_is_told_by_a_mask(monkeypatch):
    *arrays, _ = inputs(jnp.bfloat16)
    monkeypatch.setattr(binding, "check_compute_capability", lambda capability: False)
    given, options = cudnn._given(PATTERNS["window"], *arrays, cudnn.read(jnp.asarray(SEGMENTS)))
    mask = cudnn.causal_mask(cudnn.lengthened(jnp.asarray(SEGMENTS), 1, 2), 20)
    np.testing.assert_array_equal(given[3] == 0, mask)
    assert options["variadic_args"] == (True, False)


@pytest.mark.parametrize(("name", "more", "known"), [("fwd", 0, {"is_training": True}), ("bwd", 3, {})])
def test_the_bindings_lowering_takes_what_it_is_given(name, more, known):
    lowering = getattr(binding, f"_dot_product_attention_{name}_cuda_lowering")
    *arrays, _ = inputs(jnp.bfloat16)
    given, options = cudnn._given(PATTERNS["plain"], *arrays, cudnn.read(jnp.asarray(SEGMENTS)))
    # It raises where one is missing or too many.
    inspect.signature(lowering).bind("context", *given, *[None] * more, **options, **known)

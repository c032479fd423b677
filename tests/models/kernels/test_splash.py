"""Splash attention, interpreted on a CPU, against plain attention; compiled, it is the same program on a TPU."""

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

from immunax.runtime.mesh import MeshSpec, build


@pytest.mark.parametrize("name", PATTERNS)
def test_values_are_those_of_plain_attention(name):
    *arrays, _ = inputs()
    fused, plain = both("splash", PATTERNS[name])
    alike(jax.jit(fused)(*arrays), plain(*arrays))


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("derivative", [slope, forward_over_reverse, reverse_over_reverse])
def test_derivatives_of_first_and_second_order_are_those_of_plain_attention(name, derivative):
    *arrays, weight = inputs()
    fused, plain = (layers(each) for each in both("splash", PATTERNS[name]))
    alike(jax.jit(derivative(fused, weight))(*arrays), jax.jit(derivative(plain, weight))(*arrays), 1e-4)


@pytest.mark.slow
def test_members_of_a_population_are_each_computed_as_alone():
    query, key, value, weight = inputs()
    fused, plain = both("splash", PATTERNS["plain"])
    queries = jnp.stack([query, 2 * query])

    def members(attend):
        return jax.jit(jax.vmap(slope(attend, weight), (0, None, None)))(queries, key, value)

    alike(members(fused), members(plain))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"data": 2, "tensor": 2}, {"fsdp": 4}, {"data": 3}])
def test_on_a_mesh_each_device_computes_its_rows_and_heads(sizes):
    *arrays, weight = inputs()
    fused, plain = both("splash", PATTERNS["window"])
    with jax.set_mesh(build(MeshSpec(**sizes))):
        alike(jax.jit(slope(fused, weight))(*arrays), slope(plain, weight)(*arrays))


@pytest.mark.slow
def test_rows_longer_than_a_block_are_computed_in_several():
    segments = np.sort(np.random.default_rng(0).integers(1, 4, (1, 700)), axis=1)
    *arrays, weight = inputs(segments=segments)
    fused, plain = both("splash", PATTERNS["window"], segments)
    alike(jax.jit(slope(fused, weight))(*arrays), jax.jit(slope(plain, weight))(*arrays))


def test_every_kind_of_padding_is_asked_about():
    assert {0, 1, 2, -2} == set(np.unique(SEGMENTS))
